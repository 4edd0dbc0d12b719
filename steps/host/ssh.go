package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"runbook/steps"
)

// sessionsPerConn keeps below sshd's MaxSessions, which is 10 unless configured.
const sessionsPerConn = 8

const (
	keepAliveEvery = 15 * time.Second
	keepAliveWait  = 30 * time.Second
	dialTimeout    = 30 * time.Second
)

// DialSSH connects to the machine and checks its host key. It opens further connections when
// many commands run at the same time, and a new one when an old one broke: for a command of which nothing
// was sent yet, never for one that may have begun.
func DialSSH(ctx context.Context, c Config) (Machine, error) {
	m := &sshHost{config: c, name: c.user() + "@" + c.sshAddr()}
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	m.conns = append(m.conns, conn)
	return m, nil
}

type sshHost struct {
	config Config
	name   string

	mu         sync.Mutex
	closed     bool
	conns      []*sshConn
	background []*remote // started with DetachNone
}

// sshConn is one connection.
type sshConn struct {
	client   *ssh.Client
	sessions int           // guarded by sshHost.mu
	gone     chan struct{} // closed when the connection has ended
}

func (m *sshHost) String() string { return m.name }

// Close ends the processes that were started to live no longer than the run, and the connections.
func (m *sshHost) Close() error {
	m.mu.Lock()
	m.closed = true
	conns, background := m.conns, m.background
	m.conns, m.background = nil, nil
	m.mu.Unlock()
	for _, r := range background {
		r.stop(defaultGrace)
	}
	for _, c := range conns {
		_ = c.client.Close() // it may be gone already
		<-c.gone
	}
	return nil
}

// connect makes a connection and keeps watch over it.
func (m *sshHost) connect(ctx context.Context) (*sshConn, error) {
	client, err := dialClient(ctx, m.config)
	if err != nil {
		return nil, err
	}
	c := &sshConn{client: client, gone: make(chan struct{})}
	go func() {
		defer close(c.gone)
		_ = client.Wait()
		m.mu.Lock()
		m.conns = slices.DeleteFunc(m.conns, func(o *sshConn) bool { return o == c })
		m.mu.Unlock()
	}()
	go c.keepAlive()
	return c, nil
}

// keepAlive closes a connection whose other side has gone silent, so that what waits on it ends.
func (c *sshConn) keepAlive() {
	every := time.NewTicker(keepAliveEvery)
	defer every.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-every.C:
		}
		dead := time.AfterFunc(keepAliveWait, func() { _ = c.client.Close() })
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		dead.Stop()
		if err != nil {
			return
		}
	}
}

// session opens a session on a connection that has room. Nothing of a command is sent here, so
// a broken connection is replaced once.
func (m *sshHost) session(ctx context.Context) (ssh.Channel, <-chan *ssh.Request, *sshConn, error) {
	for try := 0; ; try++ {
		c, err := m.acquire(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = c.client.Close() }) // an unanswered request has no other end
		ch, reqs, err := c.client.OpenChannel("session", nil)
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			return ch, reqs, c, nil
		}
		m.release(c)
		if ctx.Err() != nil {
			return nil, nil, nil, ended(ctx, false, "open a session on %s", m)
		}
		var full *ssh.OpenChannelError
		if !errors.As(err, &full) {
			_ = c.client.Close()
			<-c.gone
		}
		if try > 0 || errors.As(err, &full) {
			return nil, nil, nil, steps.Temporarily("closed", fmt.Errorf("open a session on %s: %w", m, err))
		}
	}
}

func (m *sshHost) acquire(ctx context.Context) (*sshConn, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, false, "open a session on %s", m)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, steps.Errorf("closed", "open a session on %s: it was closed", m)
	}
	for _, c := range m.conns {
		if c.sessions < sessionsPerConn {
			c.sessions++
			m.mu.Unlock()
			return c, nil
		}
	}
	m.mu.Unlock()
	c, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		_ = c.client.Close()
		return nil, steps.Errorf("closed", "open a session on %s: it was closed", m)
	}
	c.sessions++
	select {
	case <-c.gone: // ended already: not for the list, from which it was to be removed
	default:
		m.conns = append(m.conns, c)
	}
	return c, nil
}

func (m *sshHost) release(c *sshConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.sessions--
}

// remote is a command under way over there. It speaks to the channel itself, since ssh.Session tells of
// an exit only when the channel closes, which a grand-child that keeps the output open can put off for ever.
type remote struct {
	m      *sshHost
	conn   *sshConn
	ch     ssh.Channel
	stdout *capture
	stderr *marked
	done   chan struct{} // closed when it has ended and its output was read

	// Valid once done is closed.
	status *uint32 // exit status; nil: it never came
	signal string
}

// start sends a script, and what it reads from its standard input after that.
//
// The command line is fixed but for a number: the script itself comes over standard input
// and is evaluated by the shell that read it, so nothing an author wrote, and no secret, is in an argument list.
func (m *sshHost) start(ctx context.Context, script string, input []byte, limit int) (*remote, error) {
	ch, reqs, conn, err := m.session(ctx)
	if err != nil {
		return nil, err
	}
	r := &remote{m: m, conn: conn, ch: ch, done: make(chan struct{}),
		stdout: &capture{limit: limit}, stderr: &marked{to: &capture{limit: limit}, begun: make(chan struct{})}}
	exited, closed := make(chan struct{}), make(chan struct{})
	go r.requests(reqs, exited, closed)

	line := `exec sh -c 's=$(head -c ` + strconv.Itoa(len(script)) + `; echo x); eval "${s%x}"'`
	stop := context.AfterFunc(ctx, func() { _ = conn.client.Close() })
	ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{line}))
	if inTime := stop(); !inTime || err != nil || !ok {
		_ = ch.Close()
		m.release(conn)
		switch {
		case !inTime:
			return nil, ended(ctx, false, "start a shell on %s", m) // the script was not sent
		case err != nil:
			return nil, steps.Temporarily("closed", fmt.Errorf("start a shell on %s: %w", m, err))
		}
		return nil, steps.Errorf("start", "start a shell on %s: its SSH server refuses", m)
	}
	var read sync.WaitGroup
	read.Go(func() { r.stdout.drain(ch) })
	read.Go(func() { _, _ = io.Copy(r.stderr, ch.Stderr()) })
	go func() {
		_, _ = io.WriteString(ch, script)
		_, _ = ch.Write(input) // a connection that breaks here ends the channel without a status
	}()
	go func() {
		defer close(r.done)
		<-exited
		// Somebody the command started may hold its output open.
		late := time.AfterFunc(outputDelay, func() { _ = ch.Close() })
		lost := time.AfterFunc(2*outputDelay, func() { _ = conn.client.Close() })
		read.Wait()
		_ = ch.Close()
		<-closed
		late.Stop()
		lost.Stop()
		m.release(conn)
	}()
	return r, nil
}

// requests waits for the exit status: exited is closed when it came, closed when the channel ended.
func (r *remote) requests(reqs <-chan *ssh.Request, exited, closed chan<- struct{}) {
	once := sync.OnceFunc(func() { close(exited) })
	defer close(closed)
	defer once()
	for req := range reqs {
		switch req.Type {
		case "exit-status":
			var msg struct{ Status uint32 }
			if ssh.Unmarshal(req.Payload, &msg) == nil {
				r.status = &msg.Status
				once()
			}
		case "exit-signal":
			var msg struct {
				Signal        string
				Core          bool
				Error, Locale string
			}
			if ssh.Unmarshal(req.Payload, &msg) == nil {
				r.signal = msg.Signal
				once()
			}
		}
		if req.WantReply {
			_ = req.Reply(false, nil)
		}
	}
}

// stop asks the script to end its process group, and waits until it has; a connection
// that does not answer is given up.
func (r *remote) stop(grace time.Duration) {
	tenths := max(1, grace.Milliseconds()/100)
	go func() {
		_, _ = io.WriteString(r.ch, strconv.FormatInt(tenths, 10)+"\n")
		_ = r.ch.CloseWrite()
	}()
	wait := time.NewTimer(grace + 3*time.Second)
	defer wait.Stop()
	select {
	case <-r.done:
	case <-wait.C:
		_ = r.conn.client.Close()
		<-r.done
	}
}

// result gives what it left. It is only valid once done is closed.
func (r *remote) result() (Result, error) {
	res := Result{Stdout: r.stdout.output(), Stderr: r.stderr.output()}
	switch {
	case r.signal != "":
		res.Code, res.Signal = -1, Signal(r.signal)
	case r.status == nil:
		res.Code = -1
		return res, &steps.Error{Kind: "closed", Unknown: true, Err: fmt.Errorf("the connection to %s was cut", r.m)}
	default:
		res.Code = int(*r.status)
	}
	return res, nil
}

// marked takes the script's own line out of stderr, by which it tells how it began: "!", "!pid N", "!absent", "!dir".
// What came before it was said by the login (a shell's rc file), and means nothing unless no such line follows.
type marked struct {
	to    *capture
	begun chan struct{} // closed when the line was read
	line  []byte        // the script's, or what there is of a line yet
	login capture
	seen  bool
}

// mark is the script's line; longestMark bounds one that might still become it.
var mark = regexp.MustCompile(`^!(pid \d+|absent|dir)?$`)

const longestMark = 64

func (w *marked) Write(p []byte) (int, error) {
	n := len(p)
	for !w.seen && len(p) > 0 {
		i := slices.Index(p, '\n') + 1
		part := p[:i]
		if i == 0 {
			part = p
		}
		w.line = append(w.line, part...)
		p = p[len(part):]
		switch line := strings.TrimSuffix(string(w.line), "\n"); {
		case i > 0 && mark.MatchString(line):
			w.line, w.seen = []byte(line), true
			close(w.begun)
		case i > 0 || len(w.line) > longestMark:
			w.login.limit = w.to.limit
			_, _ = w.login.Write(w.line)
			w.line = nil
		}
	}
	_, _ = w.to.Write(p)
	return n, nil
}

// output gives what followed the script's line, or all where there is none.
func (w *marked) output() Output {
	if w.seen {
		return w.to.output()
	}
	_, _ = w.login.Write(w.line)
	w.line = nil
	return w.login.output()
}

func (m *sshHost) Run(ctx context.Context, c Command) (Result, error) {
	argv, err := c.args()
	if err != nil {
		return Result{}, err
	}
	script, input := runScript(c, argv, "")
	r, err := m.start(ctx, script, input, c.limit())
	if err != nil {
		return Result{}, fmt.Errorf("run %s: %w", c.name(), err)
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		r.stop(c.grace(ctx))
		res, _ := r.result()
		return res, ended(ctx, true, "run %s on %s", c.name(), m)
	}
	res, err := r.result()
	if err != nil {
		return res, fmt.Errorf("run %s: %w", c.name(), err)
	}
	if err := m.begun(r, c); err != nil {
		return res, err
	}
	// sh tells of a signal as 128 and its number; a code of an author's own there is rare, and safer in doubt.
	if res.Code > 128 && res.Code <= 128+64 {
		res.Code, res.Signal = -1, signalName(syscall.Signal(res.Code-128))
	}
	return res, nil
}

// begun turns the script's first line into an error where the command did not begin.
func (m *sshHost) begun(r *remote, c Command) error {
	line := string(r.stderr.line)
	switch {
	case strings.HasPrefix(line, "!pid "):
		return nil
	case line == "!absent":
		return steps.Errorf("not-found", "run %s on %s: no such command", c.name(), m).
			WithHint("is it installed, and in the PATH of a login without terminal there?")
	case line == "!dir":
		return steps.Errorf("not-found", "run %s on %s: working directory %s: %s", c.name(), m, c.Dir, strings.TrimSpace(r.stderr.to.output().Text))
	}
	return steps.Errorf("start", "run %s on %s: %s", c.name(), m, strings.TrimSpace(r.stderr.output().Text)).
		WithHint("the host needs sh, head, setsid and mktemp")
}

// runScript gives the script that runs a command over there, and the input it reads.
//
// It keeps the rest of standard input as a leash: when a line comes, or the connection ends, it sends the
// command's process group SIGTERM and, after the tenths of a second in that line, SIGKILL. So
// nothing goes on over there that nobody here waits for, however the runner ended.
func runScript(c Command, argv []string, output string) (string, []byte) {
	var b strings.Builder
	var input []byte
	take := func(path, content string) {
		fmt.Fprintf(&b, "(umask 077; head -c %d >%s) && [ $(wc -c <%s) -eq %d ] || exit 255\n", len(content), path, path, len(content))
		input = append(input, content...)
	}
	stdin := "/dev/null"
	if len(c.Files) > 0 || len(c.Stdin) > 0 {
		b.WriteString(`d=$(mktemp -d "${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}/runner.XXXXXXXX") || exit 255
trap 'rm -rf -- "$d"' EXIT
`)
	}
	for _, name := range sortedKeys(c.Files) {
		take(`"$d"/`+name, c.Files[name])
		fmt.Fprintf(&b, "export %s=\"$d\"/%s\n", name, name)
	}
	if len(c.Stdin) > 0 {
		take(`"$d"/.stdin`, string(c.Stdin))
		stdin = `"$d"/.stdin`
	}
	for _, name := range sortedKeys(c.Env) {
		fmt.Fprintf(&b, "export %s=%s\n", name, quote(c.Env[name]))
	}
	if c.Dir != "" {
		fmt.Fprintf(&b, "e=$(cd -- %s 2>&1) || { echo '!dir' >&2; echo \"$e\" >&2; exit 255; }\ncd -- %s\n", quote(c.Dir), quote(c.Dir))
	}
	fmt.Fprintf(&b, "command -v -- %s >/dev/null 2>&1 || { echo '!absent' >&2; exit 255; }\n", quote(argv[0]))
	redirect := ""
	if output != "" {
		redirect = " >>" + quote(output)
	}
	// The command's own shell tells its number before anything of the command's can be on stderr.
	fmt.Fprintf(&b, "exec 3<&0\nsetsid sh -c 'echo \"!pid $$\" >&2; %sexec \"$@\"' sh %s <%s 3<&-%s &\n", stderrTo(output), quoteAll(argv), stdin, redirect)
	fmt.Fprintf(&b, `p=$!
exec >/dev/null 2>&1
(
	g=
	IFS= read -r g <&3
	trap '' TERM
	kill -TERM -$p || kill -TERM $p
	n=0
	while kill -0 -$p && [ $n -lt ${g:-%d} ]; do sleep 0.1; n=$((n+1)); done
	kill -KILL -$p && n=0
	while kill -0 -$p && [ $n -lt 10 ]; do sleep 0.1; n=$((n+1)); done
) &
w=$!
wait $p
r=$?
kill -TERM $w
wait $w
exit $r
`, max(1, cmp.Or(c.Grace, defaultGrace).Milliseconds()/100))
	return b.String(), input
}

func stderrTo(output string) string {
	if output == "" {
		return ""
	}
	return "exec 2>&1; "
}

func (m *sshHost) Start(ctx context.Context, s Spawn) (Process, error) {
	if s.Detach != DetachNone {
		return startDetached(ctx, m, s)
	}
	c := Command{Argv: s.Argv, Dir: s.Dir, Env: s.Env}
	if _, err := c.args(); err != nil {
		return Process{}, err
	}
	output := s.Output
	if output == "" {
		output = "/dev/null"
	}
	script, input := runScript(c, s.argv(), output)
	r, err := m.start(ctx, script, input, 4<<10)
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", s.Argv[0], err)
	}
	select {
	case <-r.stderr.begun:
	case <-r.done:
	case <-ctx.Done():
		r.stop(defaultGrace)
		return Process{}, ended(ctx, true, "start %s on %s", s.Argv[0], m)
	}
	if err := m.begunOrEnded(r, c); err != nil {
		return Process{}, err
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(string(r.stderr.line), "!pid "))
	if err != nil {
		return Process{}, steps.Errorf("start", "start %s on %s: %q", s.Argv[0], m, r.stderr.line)
	}
	m.mu.Lock()
	m.background = append(m.background, r)
	m.mu.Unlock()
	if s.PIDFile != "" {
		if _, err := m.ask(ctx, "start "+s.Argv[0], fmt.Sprintf("p=%d\n%s", pid, s.waitScript(false)), nil); err != nil {
			return Process{}, err
		}
	}
	return m.Process(ctx, pid)
}

func (m *sshHost) begunOrEnded(r *remote, c Command) error {
	select {
	case <-r.stderr.begun:
		if strings.HasPrefix(string(r.stderr.line), "!pid ") {
			return nil
		}
		<-r.done // it ends by itself then
	default:
	}
	if _, err := r.result(); err != nil {
		return err
	}
	if err := m.begun(r, c); err != nil {
		return err
	}
	return steps.Errorf("start", "start %s on %s: it ended at once", c.name(), m)
}

// script runs a shell script of this package's own, which reads stdin.
func (m *sshHost) script(ctx context.Context, text string, stdin []byte) (Result, error) {
	return m.scriptLimit(ctx, text, stdin, defaultLimit)
}

func (m *sshHost) scriptLimit(ctx context.Context, text string, stdin []byte, limit int) (Result, error) {
	r, err := m.start(ctx, "export LC_ALL=C; echo '!' >&2\n"+text, stdin, limit)
	if err != nil {
		return Result{}, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		_ = r.ch.Close()
		r.stop(0)
		return Result{}, ended(ctx, true, "ask %s", m)
	}
	res, err := r.result()
	if err == nil && !r.stderr.seen {
		return res, steps.Errorf("start", "start a shell on %s: %s", m, strings.TrimSpace(res.Stderr.Text)).
			WithHint("the host needs a POSIX sh and head")
	}
	return res, err
}

func (m *sshHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := m.acquire(ctx)
	if err != nil {
		return nil, err
	}
	n, err := c.client.DialContext(ctx, "tcp", addr)
	if err == nil {
		return &channelConn{Conn: n, release: sync.OnceFunc(func() { m.release(c) })}, nil
	}
	m.release(c)
	var open *ssh.OpenChannelError
	switch {
	case ctx.Err() != nil:
		return nil, ended(ctx, false, "connect to %s from %s", addr, m)
	case errors.As(err, &open) && open.Reason == ssh.ConnectionFailed:
		if strings.Contains(open.Message, "refused") {
			return nil, dialError(addr, m, fmt.Errorf("%s: %w", open.Message, syscall.ECONNREFUSED))
		}
		return nil, dialError(addr, m, err)
	case errors.As(err, &open) && open.Reason == ssh.Prohibited:
		return nil, steps.Errorf("forbidden", "connect to %s from %s: %w", addr, m, err).
			WithHint("its SSH server forbids it: AllowTcpForwarding in sshd_config")
	}
	return nil, dialError(addr, m, err)
}

// channelConn gives its place on the connection back when it is closed.
type channelConn struct {
	net.Conn
	release func()
}

func (c *channelConn) Close() error {
	c.release()
	return c.Conn.Close()
}
