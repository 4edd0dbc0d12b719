package redis

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"

	goredis "github.com/redis/go-redis/v9"

	"runbook/steps"
)

// wire is a connection that is logged in. It answers go-redis' HELLO itself, because old
// servers close on it and proxies route it as a key, and it remembers whether the
// request went out: what a failure means depends on it.
type wire struct {
	net.Conn

	mu     sync.Mutex
	taken  bool   // go-redis has it
	hello  bool   // go-redis has sent its HELLO
	answer []byte // to be read before what the server sends
	sent   bool   // since begin, bytes went out
	failed bool   // the last write did not go out whole
	closed bool
}

// outcome says how far a request came.
type outcome struct {
	// sent: the request may have reached the server whole.
	sent bool
}

func (w *wire) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent, w.failed = false, false
}

// outcome: a server carries out whole commands only, so a write that failed half-way was not carried out.
func (w *wire) outcome() outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	return outcome{sent: w.sent && !w.failed}
}

func (w *wire) take() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken || w.closed {
		return false
	}
	w.taken = true
	return true
}

// Write sends what go-redis writes, its HELLO apart.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	if !w.hello {
		w.hello = true
		if bytes.HasPrefix(b, []byte("*2\r\n$5\r\nhello\r\n")) {
			w.answer = []byte("-ERR unknown command 'HELLO'\r\n")
			w.mu.Unlock()
			return len(b), nil
		}
	}
	w.mu.Unlock()
	n, err := w.Conn.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = w.sent || n > 0
	w.failed = err != nil
	return n, err
}

// Read gives the answer to HELLO, then what the server sends.
func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	if len(w.answer) > 0 {
		n := copy(b, w.answer)
		w.answer = w.answer[n:]
		w.mu.Unlock()
		return n, nil
	}
	w.mu.Unlock()
	return w.Conn.Read(b)
}

// Close ends the connection.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.Conn.Close()
}

func (w *wire) cut() { _ = w.Close() }

// usable tells whether the server still holds its end, as far as this end has heard: a
// request sent into a connection that an idle time-out or a restart has closed would
// leave its outcome unknown for no need.
func (w *wire) usable() bool {
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	if closed {
		return false
	}
	conn := w.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_, isTLS := w.Conn.(*tls.Conn)
	alive := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Bytes that nobody asked for mean a reader out of step; below TLS they may be session tickets.
		alive = errors.Is(err, syscall.EAGAIN) || n > 0 && isTLS
		return true
	})
	return err == nil && alive
}

// dial opens a connection and logs in. Until it returns the request itself was not sent,
// so what fails here never leaves an unknown outcome.
func dial(ctx context.Context, through steps.Dialer, cfg Config, req request) (*wire, error) {
	conn, err := through(ctx, "tcp", string(cfg.Addr))
	if err != nil {
		return nil, dialFailed(ctx, req, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	logged, err := login(ctx, conn, cfg, req)
	if !stop() && err == nil {
		err = notSent(ctx, req)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &wire{Conn: logged}, nil
}

func login(ctx context.Context, conn net.Conn, cfg Config, req request) (net.Conn, error) {
	if cfg.TLS {
		secured, err := secure(ctx, conn, cfg)
		if err != nil {
			if ctx.Err() != nil {
				return nil, notSent(ctx, req)
			}
			return nil, steps.Errorf("tls", "%s: speak TLS: %w", req, err).WithHint("check the target's tls, tls_ca and tls_name")
		}
		conn = secured
	}
	var cmds [][]string
	if pass := cfg.Password.Reveal(); pass != "" {
		if cfg.Username != "" {
			cmds = append(cmds, []string{"AUTH", cfg.Username, pass})
		} else {
			cmds = append(cmds, []string{"AUTH", pass})
		}
	}
	if cfg.DB > 0 {
		cmds = append(cmds, []string{"SELECT", strconv.Itoa(cfg.DB)})
	}
	for _, cmd := range cmds {
		line, err := exchange(conn, cmd)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, notSent(ctx, req)
		case err != nil:
			return nil, steps.Temporarily("closed", fmt.Errorf("%s: log in: %w", req, err))
		case line[0] == '-':
			return nil, loginRefused(req, cmd, line[1:])
		}
	}
	return conn, nil
}

// exchange sends a command whose answer is one line, and reads it byte by byte so that
// nothing is buffered which belongs to the next reader.
func exchange(conn net.Conn, cmd []string) (string, error) {
	if _, err := conn.Write(encode(cmd)); err != nil {
		return "", err
	}
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := conn.Read(b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > 4096 {
			return "", errors.New("the answer is no line of the protocol")
		}
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || (line[0] != '+' && line[0] != '-') {
		return "", errors.New("the answer is not of the protocol")
	}
	return string(line), nil
}

func encode(cmd []string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(cmd))
	for _, a := range cmd {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

func secure(ctx context.Context, conn net.Conn, cfg Config) (net.Conn, error) {
	tc := &tls.Config{ServerName: cfg.TLSName, MinVersion: tls.VersionTLS12}
	if tc.ServerName == "" {
		host, _, err := net.SplitHostPort(string(cfg.Addr))
		if err != nil {
			return nil, err
		}
		tc.ServerName = host
	}
	if cfg.TLSCA != "" {
		pem, err := os.ReadFile(cfg.TLSCA)
		if err != nil {
			return nil, err
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", cfg.TLSCA)
		}
	}
	c := tls.Client(conn, tc)
	return c, c.HandshakeContext(ctx)
}

// brokenConn is what go-redis gets should it ask for a connection that was not opened for it.
type brokenConn struct{ net.Conn } // for its addresses

var errNotConnected = errors.New("not connected")

func (brokenConn) Read([]byte) (int, error)  { return 0, errNotConnected }
func (brokenConn) Write([]byte) (int, error) { return 0, errNotConnected }
func (brokenConn) Close() error              { return nil }

// isReplyError tells an answer of the server from a failure to get one.
func isReplyError(err error) bool {
	var e goredis.Error
	return errors.As(err, &e)
}
