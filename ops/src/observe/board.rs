//! A dashboard as a value, and the JSON that Grafana reads (its classic model, schema 39).

use serde_json::{Value, json};

const COLUMNS: u32 = 24;
const SCHEMA: u32 = 39;

/// What the numbers of a panel are, in Grafana's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Count,
    Seconds,
    Bytes,
    /// 0 to 1.
    Share,
    PerSecond,
    /// Since 1970, in milliseconds.
    Moment,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Count => "short",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::Share => "percentunit",
            Unit::PerSecond => "ops",
            Unit::Moment => "dateTimeFromNow",
        }
    }
}

/// How a panel draws.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// One number, as of now.
    Stat,
    Lines,
    /// Lines upon each other.
    Stack,
}

/// One expression, and how its series are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    pub expression: String,
    pub legend: &'static str,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Panel {
    pub title: &'static str,
    /// What it shows and what to make of it: there is none without.
    pub description: &'static str,
    pub unit: Unit,
    pub look: Look,
    /// Columns of 24.
    pub width: u32,
    pub queries: Vec<Query>,
    /// From this value on it is drawn as a warning.
    pub warn_from: Option<f64>,
}

impl Panel {
    fn new(look: Look, width: u32, title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self { title, description, unit, look, width, queries: Vec::new(), warn_from: None }
    }

    pub fn stat(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(Look::Stat, 4, title, unit, description)
    }

    pub fn lines(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(Look::Lines, 8, title, unit, description)
    }

    pub fn stack(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(Look::Stack, 8, title, unit, description)
    }

    /// In the expression `$s` stands for the selection of cluster and nodes, and `$c` for that of the cluster alone.
    pub fn query(mut self, expression: &str, legend: &'static str) -> Self {
        let expression = expression
            .replace("$s", "cluster=\"$cluster\", node=~\"$node\"")
            .replace("$c}", "cluster=\"$cluster\"}")
            .replace("$c,", "cluster=\"$cluster\",")
            .replace("$r", "$__rate_interval");
        self.queries.push(Query { expression, legend });
        self
    }

    /// The 50th and the 99th percentile of a histogram, by some of its labels.
    pub fn percentiles(self, metric: &str, more: &str, by: &str, legends: [&'static str; 2]) -> Self {
        let of = |share: &str| {
            let by = if by.is_empty() { "le".to_string() } else { format!("le, {by}") };
            format!("histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{$s{more}}}[$r])))")
        };
        self.query(&of("0.5"), legends[0]).query(&of("0.99"), legends[1])
    }

    pub fn warn_from(mut self, value: f64) -> Self {
        self.warn_from = Some(value);
        self
    }

    pub fn wide(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    fn height(&self) -> u32 {
        match self.look {
            Look::Stat => 4,
            Look::Lines | Look::Stack => 8,
        }
    }

    fn json(&self, id: u32, (x, y): (u32, u32)) -> Value {
        let target = |(at, query): (usize, &Query)| {
            json!({
                "datasource": datasource(),
                "refId": char::from(b'A' + at as u8).to_string(),
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": self.look == Look::Stat,
                "range": self.look != Look::Stat,
            })
        };
        let mut steps = vec![json!({ "color": "green", "value": null })];
        steps.extend(self.warn_from.map(|value| json!({ "color": "red", "value": value })));
        let stacking = if self.look == Look::Stack { "normal" } else { "none" };
        let (kind, custom, options) = match self.look {
            Look::Stat => (
                "stat",
                json!({}),
                json!({ "colorMode": "value", "graphMode": "none", "textMode": "auto",
                        "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false } }),
            ),
            Look::Lines | Look::Stack => (
                "timeseries",
                json!({ "drawStyle": "line", "lineWidth": 1, "showPoints": "never",
                        "fillOpacity": if self.look == Look::Stack { 30 } else { 5 },
                        "stacking": { "mode": stacking, "group": "A" },
                        "thresholdsStyle": { "mode": if self.warn_from.is_some() { "dashed" } else { "off" } } }),
                json!({ "legend": { "displayMode": "list", "placement": "bottom" },
                        "tooltip": { "mode": "multi", "sort": "desc" } }),
            ),
        };
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height() },
            "targets": self.queries.iter().enumerate().map(target).collect::<Vec<_>>(),
            "fieldConfig": {
                "defaults": { "unit": self.unit.name(), "custom": custom,
                              "color": { "mode": if self.look == Look::Stat { "thresholds" } else { "palette-classic" } },
                              "thresholds": { "mode": "absolute", "steps": steps } },
                "overrides": [],
            },
            "options": options,
        })
    }
}

/// Panels under a heading.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    pub title: &'static str,
    pub panels: Vec<Panel>,
}

/// A dashboard.
#[derive(Clone, PartialEq, Debug)]
pub struct Board {
    /// Also the name of its file; it stays the same for ever, as links go by it.
    pub uid: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub rows: Vec<Row>,
}

impl Board {
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    /// The text of its file.
    pub fn text(&self) -> String {
        let value = self.json();
        serde_json::to_string_pretty(&value).expect("a tree of strings and numbers is written") + "\n"
    }

    /// A page that draws it from a Prometheus, as a preview without Grafana.
    pub fn preview(&self, prometheus: &str, cluster: &str, minutes: u32) -> String {
        include_str!("../../../grafana/preview/preview.html")
            .replace("/*BOARD*/null", &self.text())
            .replace("/*PROMETHEUS*/", prometheus)
            .replace("/*CLUSTER*/", cluster)
            .replace("/*MINUTES*/5", &minutes.to_string())
    }

    fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["quorate"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": false,
            "graphTooltip": 1,
            "refresh": "5s",
            "time": { "from": "now-30m", "to": "now" },
            "templating": { "list": variables() },
            "annotations": { "list": annotations() },
            "links": [{ "type": "dashboards", "tags": ["quorate"], "title": "Quorate", "asDropdown": false,
                        "keepTime": true, "includeVars": true }],
            "panels": self.layout(),
        })
    }

    /// Panels from left to right, a new line where one does not fit.
    fn layout(&self) -> Vec<Value> {
        let (mut panels, mut id, mut y) = (Vec::new(), 0, 0);
        let mut number = || {
            id += 1;
            id
        };
        for row in &self.rows {
            panels.push(json!({
                "id": number(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    (x, y, height) = (0, y + height, 0);
                }
                panels.push(panel.json(number(), (x, y)));
                x += panel.width;
                height = height.max(panel.height());
            }
            y += height;
        }
        panels
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables() -> Value {
    let query = |text: &str| json!({ "query": text, "refId": "variable" });
    json!([
        { "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus" },
        { "name": "cluster", "label": "Cluster", "type": "query", "datasource": datasource(), "refresh": 2, "sort": 1,
          "query": query("label_values(quorate_build_info, cluster)") },
        { "name": "node", "label": "Node", "type": "query", "datasource": datasource(), "refresh": 2, "sort": 3,
          "multi": true, "includeAll": true, "allValue": ".+", "current": { "text": ["All"], "value": ["$__all"] },
          "query": query("label_values(quorate_build_info{cluster=\"$cluster\"}, node)") },
    ])
}

/// Expressions of the annotations, and what they mark.
pub const ANNOTATIONS: [(&str, &str, &str, &str); 4] = [
    (
        "Faults",
        "red",
        "ALERTS{alertname=~\"Quorate.+\", alertstate=\"firing\", cluster=\"$cluster\"}",
        "{{alertname}} {{node}} {{peer}}",
    ),
    ("Nodes down", "orange", "up{job=\"quorate\", cluster=\"$cluster\"} == 0", "{{node}} is down"),
    ("Starts", "blue", "changes(quorate_start_time_seconds{cluster=\"$cluster\"}[1m]) > 0", "{{node}} started"),
    ("Epochs", "purple", "changes(quorate_epoch{cluster=\"$cluster\"}[1m]) > 0", "{{node}} has a new topology"),
];

fn annotations() -> Value {
    let of = |(name, color, expression, title): (&str, &str, &str, &str)| {
        json!({ "name": name, "enable": true, "iconColor": color, "datasource": datasource(), "expr": expression,
                "step": "5s", "titleFormat": title, "useValueForTime": false })
    };
    ANNOTATIONS.map(of).into()
}
