package redis_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbook/internal/simulate/redis"
)

// TestRecordings holds the simulator to what a real server answered, word for word.
func TestRecordings(t *testing.T) {
	names, dir := recordings()
	if len(names) == 0 {
		t.Fatal("no recordings found")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(25 * 365 * 24 * time.Hour) // a bubble begins in 2000, when a time in milliseconds had a digit less
				names, opts := servers(string(b))
				st := newSimStage(t, names, opts)
				p := &player{stage: st, names: names}
				got, err := p.play(string(b))
				if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(string(b), got); diff != "" {
					t.Errorf("recorded (-), simulated (+):\n%s", diff)
				}
			})
		})
	}
}

type simStage struct {
	t       *testing.T
	servers map[string]*redis.Server
	ports   map[string]string
}

func newSimStage(t *testing.T, names []string, opts map[string][]string) *simStage {
	s := &simStage{t: t, servers: map[string]*redis.Server{}, ports: map[string]string{}}
	network := redis.NewNetwork()
	for i, n := range names {
		s.ports[n] = []string{"36001", "36002", "36003"}[i]
		config := map[string]string{"save": "", "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "3600", "enable-debug-command": "yes", "loglevel": "warning", "dir": "/tmp/a"}
		for j := 0; j+1 < len(opts[n]); j += 2 {
			config[opts[n][j][2:]] = opts[n][j+1]
		}
		srv, err := redis.New(redis.Options{Name: n, Addr: "127.0.0.1:" + s.ports[n], NoListen: true, Network: network, Config: config})
		if err != nil {
			t.Fatal(err)
		}
		s.servers[n] = srv
		t.Cleanup(srv.Close)
	}
	return s
}

func (s *simStage) port(n string) string              { return s.ports[n] }
func (s *simStage) dial(n string) (net.Conn, error)   { return s.servers[n].Pipe() }
func (s *simStage) loading(n string, d time.Duration) { s.servers[n].SetLoading(d) }
func (s *simStage) down(n string)                     { s.servers[n].Stop() }
func (s *simStage) up(n string) {
	if err := s.servers[n].Restart(false); err != nil {
		s.t.Fatal(err)
	}
}

func (s *simStage) slowSync(_ string, d time.Duration) {
	for _, srv := range s.servers {
		srv.SetFullSync(d)
	}
}
