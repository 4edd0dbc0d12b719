package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"runbook/schema"
	"runbook/steps"
)

// What the kinds of failures of a request mean for what was asked:
//
//	refused     nothing listens there, or the way there is shut: not sent, may pass
//	address     the name does not resolve: not sent
//	tls, auth   not let in: not sent (auth may also be the answer to the request: not carried out)
//	timeout     no connection in time: not sent; no answer in time: outcome unknown
//	closed      the connection ended: outcome unknown once the request had gone out whole
//	reply       what came back is not of the protocol: outcome unknown
//	canceled    the run is stopping: outcome unknown once the request had gone out whole
//	loading, masterdown, tryagain, busy, clusterdown, noreplicas   answered: not carried out, may pass
//	readonly, server, conflict   answered: not carried out, and will not be
//	refused-write  a client that only looks was asked to do more: not sent

// request is what was asked and where, for the words of an error. Printed, it shows no secret.
type request struct {
	addr   string
	args   []string
	secret schema.Secret
}

// String gives "config set maxmemory 64mb on 127.0.0.1:6379".
func (r request) String() string { return r.mask(Line(r.args)) + " on " + r.addr }

func (r request) mask(s string) string { return hide(s, r.secret.Reveal()) }

// hide takes a secret out of a text that somebody else wrote.
func hide(s, secret string) string {
	if len(secret) < 4 { // shorter ones are in every text
		return s
	}
	return strings.ReplaceAll(s, secret, masked)
}

// ServerError is an error that the server answered; it did not carry the request out.
type ServerError struct {
	Text string // in the server's words
}

func (e *ServerError) Error() string { return e.Text }

// Code is the first word, such as READONLY.
func (e *ServerError) Code() string { code, _, _ := strings.Cut(e.Text, " "); return code }

// Answered gives what the server answered, where err is such an answer.
func Answered(err error) (*ServerError, bool) {
	var e *ServerError
	ok := errors.As(err, &e)
	return e, ok
}

// unsupported: the server does not know the command, or this form of it.
func unsupported(err error) bool {
	e, ok := Answered(err)
	if !ok {
		return false
	}
	t := strings.ToLower(e.Text)
	return strings.Contains(t, "unknown command") || strings.Contains(t, "unknown subcommand") ||
		strings.Contains(t, "unsupported command") || strings.HasPrefix(t, "err invalid command")
}

// noAnswer is the cause when a request's own time is over, not the step's.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.after) }
func (noAnswer) Timeout() bool   { return true }

// judge turns the end of an exchange into what a step must know.
func judge(ctx context.Context, req request, err error, o outcome) error {
	switch {
	case err == nil || errors.Is(err, goredis.Nil):
		return nil
	case isReplyError(err):
		return serverError(req, err)
	case ctx.Err() != nil:
		return ended(ctx, req, o.sent)
	case errors.As(err, new(*steps.Error)):
		return err
	case isCut(err):
		return &steps.Error{Kind: "closed", Temporary: true, Unknown: o.sent, Err: fmt.Errorf("%s: the connection was cut%s: %w", req, before(o.sent), plain(err))}
	case !o.sent:
		return &steps.Error{Kind: "closed", Temporary: true, Err: fmt.Errorf("%s: not sent: %w", req, err)}
	}
	return &steps.Error{Kind: "reply", Unknown: true, Err: fmt.Errorf("%s: the reply cannot be read: %s", req, req.mask(err.Error()))}
}

func before(sent bool) string {
	if sent {
		return " before an answer came"
	}
	return " before the request was out"
}

// plain drops the ends' addresses, which the request's line has.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, new(*net.OpError))
}

// notSent is the error of a request whose context ended before it went out.
func notSent(ctx context.Context, req request) error { return ended(ctx, req, false) }

// ended tells apart why a context ended: the request's own time, the step's, or the run's.
func ended(ctx context.Context, req request, sent bool) error {
	cause := context.Cause(ctx)
	kind, temporary := "canceled", false
	var e *steps.Error
	switch {
	case errors.As(cause, &e):
		kind, temporary = e.Kind, e.Temporary
	case errors.As(cause, new(noAnswer)), errors.Is(cause, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		kind, temporary = "timeout", true
	}
	return &steps.Error{Kind: kind, Temporary: temporary, Unknown: sent, Err: fmt.Errorf("%s: %w", req, cause)}
}

func dialFailed(ctx context.Context, req request, err error) error {
	var dns *net.DNSError
	switch {
	case ctx.Err() != nil:
		return notSent(ctx, req)
	case errors.As(err, &dns):
		return &steps.Error{Kind: "address", Temporary: dns.IsTemporary || dns.IsTimeout, Err: fmt.Errorf("%s: %w", req, dns)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return steps.Temporarily("refused", fmt.Errorf("%s: %w", req, syscall.ECONNREFUSED)).WithHint("nothing listens on %s: is the server up, and is this its address?", req.addr)
	case errors.As(err, new(*net.AddrError)):
		return &steps.Error{Kind: "address", Err: fmt.Errorf("%s: %w", req, plain(err))}
	}
	return steps.Temporarily("refused", fmt.Errorf("%s: connect: %w", req, plain(err)))
}

// nobodyThere: the connection was refused, so no process listens at that address. A way that is
// shut (no route, a time-out) says nothing of the kind, though its error is of kind refused too.
func nobodyThere(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// loginRefused judges the answer to AUTH or SELECT: the request itself was not sent.
func loginRefused(req request, cmd []string, text string) error {
	login := request{addr: req.addr, args: cmd, secret: req.secret}
	e := replyClass(login.mask(text))
	if cmd[0] == "AUTH" && !e.Temporary {
		e.Kind = "auth"
		e.Hint = "the server refused the target's username and password"
		if strings.Contains(text, "no password is set") || strings.Contains(text, "without any password configured") {
			e.Hint = "this server asks for no password: take it out of the target, or set requirepass there"
		}
	}
	e.Err = fmt.Errorf("%s: log in with %s: %w", req, Line(cmd), e.Err)
	return e
}

// serverError judges an error that the server answered.
func serverError(req request, err error) error {
	e := replyClass(req.mask(err.Error()))
	e.Err = fmt.Errorf("%s: %w", req, e.Err)
	return e
}

func replyClass(text string) *steps.Error {
	se := &ServerError{Text: text}
	e := &steps.Error{Kind: "server", Err: se}
	switch se.Code() {
	case "LOADING", "MASTERDOWN", "TRYAGAIN", "BUSY", "CLUSTERDOWN", "NOREPLICAS":
		e.Kind, e.Temporary = strings.ToLower(se.Code()), true
	case "NOAUTH":
		e.Kind, e.Hint = "auth", "the server asks for a password: set the target's password"
	case "WRONGPASS":
		e.Kind, e.Hint = "auth", "the server refused the target's username and password"
	case "NOPERM":
		e.Kind, e.Hint = "auth", "the target's user lacks the permission: give it in the server's ACL, or take another user"
	case "DENIED":
		e.Kind, e.Hint = "auth", "protected mode: the server has no password and takes connections from its own machine only"
	case "READONLY":
		e.Kind, e.Hint = "readonly", "the server is a replica"
	case "BUSYKEY":
		e.Kind = "conflict"
	case "ERR":
		if strings.Contains(text, "max number of clients") {
			e.Kind, e.Temporary = "busy", true
		}
		if strings.Contains(text, "operation not permitted") || strings.Contains(text, "invalid password") {
			e.Kind, e.Hint = "auth", "check the target's password"
		}
	}
	return e
}

// masked stands where a secret was.
const masked = "***"

// Line is a command as people read it: words quoted where they need it, long ones
// shortened, and what is known to be secret masked.
func Line(args []string) string {
	const longest, most = 120, 24
	args = Mask(args)
	words := make([]string, 0, len(args))
	for i, a := range args {
		if i == most {
			words = append(words, fmt.Sprintf("… (%d more)", len(args)-i))
			break
		}
		if len(a) > longest {
			a = a[:longest] + fmt.Sprintf("… (%d bytes)", len(a))
		}
		words = append(words, quote(a))
	}
	return strings.Join(words, " ")
}

func quote(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f || r == '\ufffd' }) {
		return strconv.Quote(s)
	}
	return s
}

// secretSettings are the settings whose value nobody may see.
var secretSettings = [...]string{
	"requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass",
	"sentinel-pass", "userpass", "slotmigrate-auth", "product_auth",
}

// IsSecretSetting tells whether a setting's value is a secret.
func IsSecretSetting(name string) bool {
	for _, s := range secretSettings {
		if strings.EqualFold(s, name) {
			return true
		}
	}
	return false
}

// Mask gives a command's words with those masked that are secret by their place.
func Mask(args []string) []string {
	out := append([]string(nil), args...)
	word := func(i int) string {
		if i < len(out) {
			return strings.ToUpper(out[i])
		}
		return ""
	}
	from := func(i, n int) {
		for j := i; j < len(out) && n != 0; j, n = j+1, n-1 {
			out[j] = masked
		}
	}
	switch word(0) {
	case "AUTH":
		from(1, -1)
	case "HELLO", "MIGRATE":
		for i := range out {
			switch {
			case strings.EqualFold(args[i], "AUTH2"), word(0) == "HELLO" && strings.EqualFold(args[i], "AUTH"):
				from(i+1, 2)
			case strings.EqualFold(args[i], "AUTH"):
				from(i+1, 1)
			}
		}
	case "CONFIG":
		for i := 2; word(1) == "SET" && i+1 < len(out); i += 2 {
			if IsSecretSetting(args[i]) {
				from(i+1, 1)
			}
		}
	case "ACL":
		for i := 3; word(1) == "SETUSER" && i < len(out); i++ {
			if out[i] != "" && strings.ContainsAny(out[i][:1], "><#!") {
				out[i] = out[i][:1] + masked
			}
		}
	case "SENTINEL":
		if word(1) == "SET" {
			for i := 3; i+1 < len(out); i += 2 {
				if strings.Contains(strings.ToLower(args[i]), "pass") {
					from(i+1, 1)
				}
			}
		}
	}
	return out
}
