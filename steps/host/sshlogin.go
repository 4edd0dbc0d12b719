package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"runbook/steps"
)

// dialClient connects, checks the host key and logs in. All its failures are known outcomes: no command was sent.
func dialClient(ctx context.Context, c Config) (*ssh.Client, error) {
	addr := c.sshAddr()
	keys, err := readKnownHosts(c)
	if err != nil {
		return nil, err
	}
	methods, done, err := authMethods(c)
	if err != nil {
		return nil, err
	}
	defer done()

	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ended(ctx, false, "connect to %s over SSH", addr)
		}
		e := dialError(addr, Local(), err)
		e.Err = fmt.Errorf("connect to %s over SSH: %w", addr, err)
		return nil, e
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	config := &ssh.ClientConfig{
		User: c.user(), Auth: methods, HostKeyCallback: keys.check, HostKeyAlgorithms: keys.algorithms(addr),
	}
	cc, chans, reqs, err := ssh.NewClientConn(conn, addr, config)
	if !stop() && err == nil {
		_ = cc.Close()
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, loginError(ctx, c, err)
	}
	return ssh.NewClient(cc, chans, reqs), nil
}

func loginError(ctx context.Context, c Config, err error) error {
	var e *steps.Error
	switch {
	case errors.As(err, &e): // the host key's
		return e
	case ctx.Err() != nil:
		return ended(ctx, false, "log in to %s as %s", c.sshAddr(), c.user())
	case strings.Contains(err.Error(), "unable to authenticate"):
		return steps.Errorf("auth", "log in to %s as %s: %w", c.sshAddr(), c.user(), err).
			WithHint("is the public key in ~/.ssh/authorized_keys there, and is this the right user? ssh %s@%s tells more", c.user(), c.Addr)
	}
	return steps.Temporarily("closed", fmt.Errorf("log in to %s as %s: %w", c.sshAddr(), c.user(), err))
}

// hostKeys are the keys of known hosts; a nil callback knows none.
type hostKeys struct {
	file  string
	known ssh.HostKeyCallback
}

func readKnownHosts(c Config) (*hostKeys, error) {
	file := c.KnownHosts
	if file == "" {
		file = defaultKnownHosts
	}
	file, err := expand(file)
	if err != nil {
		return nil, err
	}
	known, err := knownhosts.New(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, steps.Errorf("host-key", "read the known hosts: %w", err)
	}
	return &hostKeys{file: file, known: known}, nil
}

// check accepts a host key that known_hosts has, and nothing else.
func (k *hostKeys) check(addr string, remote net.Addr, key ssh.PublicKey) error {
	print := key.Type() + " " + ssh.FingerprintSHA256(key)
	var err error = &knownhosts.KeyError{}
	if k.known != nil {
		err = k.known(addr, remote, key)
	}
	var differs *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &revoked):
		return steps.Errorf("host-key", "THE HOST KEY OF %s IS REVOKED: it shows %s, refused by %s:%d", addr, print, revoked.Revoked.Filename, revoked.Revoked.Line).
			WithHint("do not connect; ask whoever runs the host")
	case errors.As(err, &differs) && len(differs.Want) > 0:
		w := differs.Want[0]
		return steps.Errorf("host-key", "THE HOST KEY OF %s HAS CHANGED: it shows %s, but %s:%d has %s %s", addr, print, w.Filename, w.Line, w.Key.Type(), ssh.FingerprintSHA256(w.Key)).
			WithHint("somebody may stand between, or the host was set up anew: ask whoever runs it, and only then replace line %d of %s", w.Line, w.Filename)
	case errors.As(err, &differs):
		return steps.Errorf("host-key", "the host key of %s is unknown: it shows %s, and %s has no key of it", addr, print, k.file).
			WithHint("compare the fingerprint on the host itself (ssh-keygen -lf of its public key in /etc/ssh); if it is the same, add this line to %s: %s",
				k.file, knownhosts.Line([]string{knownhosts.Normalize(addr)}, key))
	}
	return steps.Errorf("host-key", "check the host key of %s: %w", addr, err)
}

// algorithms asks the server for the kinds of key that are known of it: it may have others
// too, and one of those would look like a changed key. Nil: none is known, any will do to be refused.
func (k *hostKeys) algorithms(addr string) []string {
	if k.known == nil {
		return nil
	}
	var want *knownhosts.KeyError
	if err := k.known(addr, &net.TCPAddr{}, noKey{}); !errors.As(err, &want) {
		return nil
	}
	var names []string
	for _, w := range want.Want {
		types := []string{w.Key.Type()}
		if w.Key.Type() == ssh.KeyAlgoRSA {
			types = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, t := range types {
			if !slices.Contains(names, t) {
				names = append(names, t)
			}
		}
	}
	return names
}

// noKey is a key that no host has: asking for it tells which a host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// authMethods gives the identity file's key (or, without one, those of the usual names) and then the agent's keys.
func authMethods(c Config) ([]ssh.AuthMethod, func(), error) {
	var signers []ssh.Signer
	files := []string{c.Identity}
	if c.Identity == "" {
		files = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	var locked error
	for _, name := range files {
		path, err := expand(name)
		if err != nil {
			return nil, nil, err
		}
		pem, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && c.Identity == "" {
			continue
		}
		if err != nil {
			return nil, nil, steps.Errorf("auth", "read the identity for %s: %w", c.sshAddr(), err)
		}
		s, err := ssh.ParsePrivateKey(pem)
		var pass *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &pass):
			locked = steps.Errorf("auth", "identity %s for %s has a pass phrase", path, c.sshAddr()).WithHint("add it to an SSH agent: ssh-add %s", path)
		case err != nil && c.Identity != "":
			return nil, nil, steps.Errorf("auth", "identity %s for %s: %w", path, c.sshAddr(), err)
		case err == nil:
			signers = append(signers, s)
		}
	}
	done := func() {}
	methods := []ssh.AuthMethod{}
	if sock := os.Getenv("SSH_AUTH_SOCK"); sock != "" {
		conn, err := net.Dial("unix", sock)
		if err == nil {
			done = func() { _ = conn.Close() }
			if more, err := agent.NewClient(conn).Signers(); err == nil {
				signers = append(signers, more...)
			}
		}
	}
	if len(signers) == 0 {
		done()
		if locked != nil {
			return nil, nil, locked
		}
		return nil, nil, steps.Errorf("auth", "log in to %s as %s: no key to log in with", c.sshAddr(), c.user()).
			WithHint("name one as identity, or start an SSH agent (SSH_AUTH_SOCK)")
	}
	return append(methods, ssh.PublicKeys(signers...)), done, nil
}
