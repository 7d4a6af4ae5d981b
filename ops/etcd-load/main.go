// Puts to etcd, or linearizable gets from it, as fast as so many callers at once can make them: over gRPC, with
// etcd's own client library, as Debian has it (golang-etcd-server-dev). Prints one line of JSON.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o etcd-load ops/etcd-load/main.go
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

var (
	endpoints  = flag.String("endpoints", "127.0.0.1:2379", "addresses of the members, comma-separated")
	workload   = flag.String("workload", "puts", "puts or gets")
	inFlight   = flag.Int("in-flight", 64, "requests under way at once")
	conns      = flag.Int("connections", 3, "connections, spread over the members")
	records    = flag.Int("records", 10000, "keys; gets expect them to be there")
	valueBytes = flag.Int("value-bytes", 100, "bytes of each value")
	warmUp     = flag.Duration("warm-up", 2*time.Second, "before measuring")
	measure    = flag.Duration("time", 10*time.Second, "how long to measure")
	load       = flag.Bool("load", false, "write every key once, and measure nothing")
)

func key(number int) string { return fmt.Sprintf("bench/%012d", number) }

func fail(err error) {
	fmt.Fprintln(os.Stderr, "etcd-load:", err)
	os.Exit(1)
}

func connect() []*clientv3.Client {
	addresses := strings.Split(*endpoints, ",")
	clients := make([]*clientv3.Client, *conns)
	for i := range clients {
		// One connection each, to one member: the balancer would keep all on the same.
		config := clientv3.Config{Endpoints: addresses[i%len(addresses) : i%len(addresses)+1], DialTimeout: 5 * time.Second}
		client, err := clientv3.New(config)
		if err != nil {
			fail(err)
		}
		clients[i] = client
	}
	return clients
}

func one(client *clientv3.Client, random *rand.Rand, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	name := key(random.Intn(*records))
	if *workload == "puts" {
		_, err := client.Put(ctx, name, value)
		return err
	}
	answer, err := client.Get(ctx, name)
	if err == nil && len(answer.Kvs) != 1 {
		return fmt.Errorf("%s is not there", name)
	}
	return err
}

func loadAll(clients []*clientv3.Client, value string) {
	var group sync.WaitGroup
	for worker := 0; worker < 256; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			for number := worker; number < *records; number += 256 {
				if _, err := clients[worker%len(clients)].Put(context.Background(), key(number), value); err != nil {
					fail(err)
				}
			}
		}(worker)
	}
	group.Wait()
}

func main() {
	flag.Parse()
	clients := connect()
	value := strings.Repeat("v", *valueBytes)
	if *load {
		loadAll(clients, value)
		return
	}
	warm := time.Now().Add(*warmUp)
	until := warm.Add(*measure)
	took := make([][]time.Duration, *inFlight)
	failed := make([]int, *inFlight)
	var group sync.WaitGroup
	for worker := 0; worker < *inFlight; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			random := rand.New(rand.NewSource(int64(worker)))
			for time.Now().Before(until) {
				began := time.Now()
				err := one(clients[worker%len(clients)], random, value)
				now := time.Now()
				if now.Before(warm) || !now.Before(until) {
					continue
				}
				if err != nil {
					failed[worker]++
				} else {
					took[worker] = append(took[worker], now.Sub(began))
				}
			}
		}(worker)
	}
	group.Wait()
	report(took, failed)
}

func report(took [][]time.Duration, failed []int) {
	var all []time.Duration
	failures := 0
	for worker := range took {
		all = append(all, took[worker]...)
		failures += failed[worker]
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(part float64) int64 {
		if len(all) == 0 {
			return 0
		}
		return all[int(part*float64(len(all)-1))].Microseconds()
	}
	line, err := json.Marshal(map[string]interface{}{
		"done_per_second": float64(len(all)) / measure.Seconds(),
		"p50_us":          at(0.5), "p99_us": at(0.99), "failed": failures,
	})
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}
