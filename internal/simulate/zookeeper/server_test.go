package zookeeper_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"runbook/internal/simulate/clock"
	"runbook/internal/simulate/fault"
	"runbook/internal/simulate/zookeeper"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a server of either sort, and the clients of one test.
type stage struct {
	*testing.T
	addr string
	root string // where this test's nodes are
	said []string
}

func (s *stage) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

func (s *stage) path(name string) string { return s.root + name }

// client connects one that is gone with the test.
func (s *stage) client(opts ...any) *client {
	s.Helper()
	var conns []net.Conn
	quiet := func(c *zk.Conn) { c.SetLogger(log.New(io.Discard, "", 0)) }
	dial := func(network, addr string, timeout time.Duration) (net.Conn, error) {
		c, err := net.DialTimeout(network, addr, timeout)
		if err == nil {
			conns = append(conns, c)
		}
		return c, err
	}
	conn, events, err := zk.Connect([]string{s.addr}, 4*time.Second, zk.WithDialer(dial), quiet)
	if err != nil {
		s.Fatal(err)
	}
	c := &client{Conn: conn, events: events, conns: &conns}
	s.Cleanup(func() { conn.Close() })
	c.await(s, zk.StateHasSession)
	return c
}

type client struct {
	*zk.Conn
	events <-chan zk.Event
	conns  *[]net.Conn
}

func (c *client) await(s *stage, state zk.State) {
	s.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case e := <-c.events:
			if e.Type == zk.EventSession && e.State == state {
				return
			}
		case <-limit:
			s.Fatalf("not within 20 s: %v", state)
		}
	}
}

// short is a node's state without what differs from run to run.
func short(st *zk.Stat) string {
	if st == nil {
		return "-"
	}
	return fmt.Sprintf("v%d c%d a%d len%d children%d ephemeral=%v changed=%v", st.Version, st.Cversion, st.Aversion, st.DataLength, st.NumChildren,
		st.EphemeralOwner != 0, st.Mzxid > st.Czxid)
}

func (s *stage) word(w string) string {
	s.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, w)
	b, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

// fields gives the names of the lines, without values that differ from run to run.
func fields(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "Mode") {
			line = name
		}
		if line != "" && (len(out) == 0 || out[len(out)-1] != line) {
			out = append(out, line)
		}
	}
	return out
}

func play(t *testing.T, addr string) {
	for i, tt := range scripts {
		t.Run(tt.name, func(t *testing.T) {
			s := &stage{T: t, addr: addr, root: fmt.Sprintf("/t%d", i)}
			if _, err := s.client().Create(s.root, nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
				t.Fatal(err)
			}
			tt.do(s)
			if diff := cmp.Diff(tt.want, s.said); diff != "" {
				t.Errorf("wanted (-), answered (+):\n%s", diff)
			}
		})
	}
}

func TestSimulated(t *testing.T) { play(t, start(t, zookeeper.Options{Words: []string{"*"}}).Addr()) }

// TestReal plays the same to a real server: what the simulator promises is what that does.
func TestReal(t *testing.T) { play(t, real(t)) }

func start(t *testing.T, o zookeeper.Options) *zookeeper.Server {
	t.Helper()
	s, err := zookeeper.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// real starts the server of Debian's package and gives its address.
func real(t *testing.T) string {
	t.Helper()
	const jar = "/usr/share/java/zookeeper.jar"
	if _, err := os.Stat(jar); err != nil {
		t.Skipf("no real ZooKeeper: %v (package zookeeper)", err)
	}
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skipf("no real ZooKeeper: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "zoo.cfg")
	text := fmt.Sprintf("tickTime=2000\ndataDir=%s\nclientPort=%d\n4lw.commands.whitelist=*\nadmin.enableServer=false\n", dir, addr.Port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(java, "-cp", jar, "org.apache.zookeeper.server.ZooKeeperServerMain", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for limit := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// It listens for a while before it serves, and what connects then may never be answered.
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
			fmt.Fprint(c, "srvr")
			b, _ := io.ReadAll(c)
			c.Close()
			if strings.Contains(string(b), "Mode") {
				return addr.String()
			}
		}
		if time.Now().After(limit) {
			t.Fatal("the real server does not serve after 60 s")
		}
	}
}

// TestExpiry: a session outlives its connection by its timeout, in the world's time, and takes its nodes with it.
func TestExpiry(t *testing.T) {
	srv := start(t, zookeeper.Options{Clock: clock.New(100)})
	s := &stage{T: t, addr: srv.Addr()}
	gone := rawSession(t, srv.Addr())
	watcher := s.client()
	if err := srv.Tree().Put("/dir", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Tree().Create("/dir/e", nil, zookeeper.CreateOptions{Owner: gone.id}); err != nil {
		t.Fatal(err)
	}
	_, _, deleted, err := watcher.ExistsW("/dir/e")
	if err != nil {
		t.Fatal(err)
	}
	gone.conn.Close()
	if e := <-deleted; e.Type != zk.EventNodeDeleted {
		t.Errorf("%+v", e)
	}
	if id := rawReconnect(t, srv.Addr(), gone); id != 0 {
		t.Errorf("the session is still there: %x", id)
	}
}

func TestRestartKeepsNodesAndSessions(t *testing.T) {
	srv := start(t, zookeeper.Options{})
	s := &stage{T: t, addr: srv.Addr()}
	c := s.client()
	if _, err := c.Create("/e", []byte("x"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	id := c.SessionID()
	srv.Stop()
	if _, _, err := srv.Tree().Get("/e"); !errors.Is(err, zookeeper.ErrConnectionLoss) {
		t.Errorf("the tree of a server that is down: %v", err)
	}
	c.await(s, zk.StateDisconnected)
	if err := srv.Restart(); err != nil {
		t.Fatal(err)
	}
	c.await(s, zk.StateHasSession)
	b, _, err := c.Get("/e")
	if string(b) != "x" || err != nil || c.SessionID() != id {
		t.Errorf("%q %v %v", b, err, c.SessionID() == id)
	}
}

func TestFreeze(t *testing.T) {
	srv := start(t, zookeeper.Options{})
	c := (&stage{T: t, addr: srv.Addr()}).client()
	srv.Freeze()
	answered := make(chan error, 1)
	go func() { _, err := c.Create("/f", nil, 0, zk.WorldACL(zk.PermAll)); answered <- err }()
	other, err := net.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatalf("the kernel accepts: %v", err)
	}
	other.Close()
	select {
	case err := <-answered:
		t.Fatalf("answered while frozen: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough to see a freeze that is none
	}
	srv.Thaw()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		act     fault.Action
		applied bool
		err     error
	}{
		{"refused", zookeeper.Refuse(zookeeper.ErrNoAuth), false, zk.ErrNoAuth},
		{"cut before", fault.CutBefore(), false, zk.ErrConnectionClosed},
		{"cut after", fault.CutAfter(), true, zk.ErrConnectionClosed},
		{"delay", fault.Delay(time.Millisecond), true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := start(t, zookeeper.Options{})
			c := (&stage{T: t, addr: srv.Addr()}).client()
			srv.SetIntercept(func(op, path string) fault.Action {
				if op == "create" && path == "/x" {
					return tt.act
				}
				return fault.Pass()
			})
			if _, err := c.Create("/x", nil, 0, zk.WorldACL(zk.PermAll)); !errors.Is(err, tt.err) {
				t.Errorf("answered %v", err)
			}
			if _, there := srv.Tree().Dump()["/x"]; there != tt.applied {
				t.Errorf("created = %v", there)
			}
		})
	}
}

func TestWritesAreLogged(t *testing.T) {
	srv := start(t, zookeeper.Options{})
	c := (&stage{T: t, addr: srv.Addr()}).client()
	if _, _, err := c.Children("/"); err != nil {
		t.Fatal(err)
	}
	if w := srv.Writes(); len(w) != 0 {
		t.Errorf("%+v", w)
	}
	if _, err := c.Create("/x", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	if w := srv.Writes(); len(w) != 1 || w[0].Op != "create" || w[0].Path != "/x" {
		t.Errorf("%+v", w)
	}
}

func TestWordsAreAllowedByName(t *testing.T) {
	s := &stage{T: t, addr: start(t, zookeeper.Options{}).Addr()}
	if got, want := s.word("ruok"), "ruok is not executed because it is not in the whitelist.\n"; got != want {
		t.Errorf("%q", got)
	}
	if got := s.word("srvr"); !strings.Contains(got, "Mode: standalone") {
		t.Errorf("%q", got)
	}
}
