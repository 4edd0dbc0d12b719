package codis_test

import (
	"fmt"
	"sync"
	"testing"

	"runbook/internal/simulate/resp"
)

// BenchmarkThroughput is 16 clients that write one command at a time through two proxies.
func BenchmarkThroughput(b *testing.B) {
	w := newWorldAt(b, 2, 1)
	const clients = 16
	conns := make([]*resp.Conn, clients)
	for i := range conns {
		conns[i] = w.client(w.proxies[i%2])
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for n := range b.N/clients + 1 {
				if _, err := c.Do(b.Context(), "SET", fmt.Sprintf("c%d:%d", i, n%1000), "value"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkReads(b *testing.B) {
	w := newWorldAt(b, 2, 1)
	for name, url := range map[string]string{
		"stats": "http://" + w.dashboard.Addr() + "/topom/stats",
		"slots": "http://" + w.proxies[0].AdminAddr() + "/proxy/slots",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if status, _, err := w.call(b.Context(), "GET", url, nil); status != 200 || err != nil {
					b.Fatal(status, err)
				}
			}
		})
	}
}
