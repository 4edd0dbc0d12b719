package acceptance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"runbook/internal/simulate/redis"
)

// asked are the steps that the servers here are asked by, and the request of each that is broken.
var asked = []struct{ name, step, request string }{
	{"read", `{id: it, uses: redis.info, target: kv, RETRY}`, "INFO"},
	{"idempotent", `{id: it, uses: redis.command, target: kv, with: {args: [SET, k, v]}, effect: write, idempotent: true, undo: none, RETRY}`, "SET"},
	{"blind", `{id: it, uses: redis.command, target: kv, with: {args: [INCR, n]}, effect: write, undo: none, RETRY}`, "INCR"},
	{"probed", `{id: it, uses: redis.config-set, target: kv, with: {name: maxmemory-samples, value: 7}, RETRY}`, "CONFIG SET"},
}

// ending is how a run ends: its exit code, the kind of the error (of the step, or of the run where it is in doubt), and
// how often the request was made.
type ending struct {
	code     int
	kind     string
	requests int64
}

func TestServersThatMisbehave(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name   string
		do     func(n int64) redis.Action // with the n-th request, from 1
		config map[string]string
		target string
		ends   [4]ending // of read, idempotent, blind, probed
	}{
		{"hangs", func(int64) redis.Action { return redis.Hang() }, nil, "timeout: 200ms",
			[4]ending{{1, "timeout", 3}, {1, "timeout", 3}, {3, "timeout", 1}, {1, "timeout", 3}}},
		{"hangs once", func(n int64) redis.Action {
			if n == 1 {
				return redis.Hang()
			}
			return redis.Pass()
		}, nil, "timeout: 200ms",
			[4]ending{{0, "", 2}, {0, "", 2}, {3, "timeout", 1}, {0, "", 2}}},
		{"cuts the connection before it carries out", func(int64) redis.Action { return redis.CutBefore() }, nil, "",
			[4]ending{{1, "closed", 3}, {1, "closed", 3}, {3, "closed", 1}, {1, "closed", 3}}},
		{"carries out and cuts the connection", func(int64) redis.Action { return redis.CutAfter() }, nil, "",
			[4]ending{{1, "closed", 3}, {1, "closed", 3}, {3, "closed", 1}, {0, "", 1}}},
		{"answers garbage", func(int64) redis.Action { return redis.Garbage("HTTP/1.1 400 Bad Request\r\n\r\n") }, nil, "",
			[4]ending{{1, "reply", 1}, {1, "reply", 1}, {3, "reply", 1}, {0, "", 1}}},
		{"loads for two requests", func(n int64) redis.Action {
			if n < 3 {
				return redis.Fail("LOADING Redis is loading the dataset in memory")
			}
			return redis.Pass()
		}, nil, "",
			[4]ending{{0, "", 3}, {0, "", 3}, {0, "", 3}, {0, "", 3}}},
		{"loads for ever", func(int64) redis.Action { return redis.Fail("LOADING Redis is loading the dataset in memory") }, nil, "",
			[4]ending{{1, "loading", 3}, {1, "loading", 3}, {1, "loading", 3}, {1, "loading", 3}}},
		{"refuses the command", func(int64) redis.Action { return redis.Fail("ERR not today") }, nil, "",
			[4]ending{{1, "server", 1}, {1, "server", 1}, {1, "server", 1}, {1, "server", 1}}},
		{"is a replica", func(int64) redis.Action {
			return redis.Fail("READONLY You can't write against a read only replica.")
		}, nil, "",
			[4]ending{{1, "readonly", 1}, {1, "readonly", 1}, {1, "readonly", 1}, {1, "readonly", 1}}},
		{"asks for a password", nil, map[string]string{"requirepass": "open sesame"}, "",
			[4]ending{{1, "auth", 1}, {1, "auth", 1}, {1, "auth", 1}, {1, "auth", 0}}},
		{"has another password", nil, map[string]string{"requirepass": "open sesame"}, `password: "${{ secrets.pw }}"`,
			[4]ending{{1, "auth", 0}, {1, "auth", 0}, {1, "auth", 0}, {1, "auth", 0}}},
	} {
		for i, a := range asked {
			t.Run(fault.name+"/"+a.name, func(t *testing.T) {
				t.Parallel()
				s, err := redis.New(redis.Options{Config: fault.config})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(s.Close)
				var requests atomic.Int64
				s.SetIntercept(func(cmd []string) redis.Action {
					if line := strings.ToUpper(strings.Join(cmd, " ")); line != a.request && !strings.HasPrefix(line, a.request+" ") {
						return redis.Pass()
					}
					n := requests.Add(1)
					if fault.do == nil {
						return redis.Pass()
					}
					return fault.do(n)
				})
				d := newDesk(t)
				got := askServer(t, d, s.Addr(), fault.target, a.step, &requests)
				if want := fault.ends[i]; got != want {
					t.Errorf("%+v, want %+v\n%s", got, want, journalText(d))
				}
				if n := s.Do("GET", "n").Str; a.name == "blind" && n > "1" {
					t.Errorf("INCR was carried out %s times", n)
				}
			})
		}
	}
	for _, a := range asked {
		t.Run("nobody listens/"+a.name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			if got, want := askServer(t, d, freeAddr(t), "", a.step, new(atomic.Int64)), (ending{1, "refused", 0}); got != want {
				t.Errorf("%+v, want %+v\n%s", got, want, journalText(d))
			}
		})
	}
}

// askServer runs one step on a server and tells how that ended.
func askServer(t *testing.T, d *desk, addr, target, step string, requests *atomic.Int64) ending {
	t.Helper()
	d.env = []string{"PW=" + secret}
	config := fmt.Sprintf("kind: redis, addr: %q", addr)
	if target != "" {
		config += ", " + target
	}
	book := d.book("ask.yaml", `
secrets: {pw: {env: PW}}
targets:
  kv: {`+config+`}
steps:
  - `+strings.Replace(step, "RETRY", "retry: {attempts: 3, delay: 5ms, if: error.temporary}", 1)+`
`)
	s := d.run("exec", book).says()
	e := ending{code: s.wait(), requests: requests.Load()}
	if r := d.find("step-finished", "it"); r != nil && r.Error != nil {
		e.kind = r.Error.Kind
	} else if r := d.find("run-finished", "it"); r != nil && r.Error != nil {
		e.kind = r.Error.Kind
	}
	d.run("runs", "verify", "last").want(0)
	d.secretIsNowhere(s)
	return e
}

// secret has what escaping changes: spaces, slashes, quotes, an ampersand, letters beyond ASCII.
const secret = `S3cr&t/Pa+ss "w0rd" =ü`

// forms are the ways in which a server or a program may write a secret.
func forms(secret string) map[string]string {
	quoted, _ := json.Marshal(secret)
	return map[string]string{
		"plain":           secret,
		"JSON":            strings.Trim(string(quoted), `"`),
		"JSON, quotes":    strings.ReplaceAll(secret, `"`, `\"`),
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64, raw":     base64.RawStdEncoding.EncodeToString([]byte(secret)),
		"base64, for URL": base64.URLEncoding.EncodeToString([]byte(secret)),
		"URL, query":      url.QueryEscape(secret),
		"URL, path":       url.PathEscape(secret),
	}
}

// secretIsNowhere looks for it in the state directory and in what sessions printed.
func (d *desk) secretIsNowhere(sessions ...*session) {
	d.t.Helper()
	look := func(where, text string) {
		for name, form := range forms(secret) {
			if strings.Contains(text, form) {
				at := strings.Index(text, form)
				d.t.Errorf("%s holds the secret (%s): …%s…", where, name, text[max(0, at-120):min(len(text), at+len(form)+40)])
			}
		}
	}
	for _, s := range sessions {
		look("the output of "+strings.Join(s.args, " "), s.said())
	}
	err := filepath.WalkDir(d.state, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		look(path, string(text))
		return err
	})
	if err != nil {
		d.t.Error(err)
	}
}

// The secret is sent, set, echoed by the server in every form, printed by a command, and shown nowhere.
func TestSecretIsNowhere(t *testing.T) {
	t.Parallel()
	s, err := redis.New(redis.Options{Config: map[string]string{"requirepass": secret}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var echo strings.Builder
	for _, form := range forms(secret) {
		echo.WriteString(" " + form)
	}
	s.SetIntercept(func(cmd []string) redis.Action {
		line := strings.ToUpper(strings.Join(cmd, " "))
		if strings.HasPrefix(line, "CONFIG SET MASTERAUTH") || strings.HasPrefix(line, "INCR") {
			return redis.Fail("ERR echo:" + echo.String())
		}
		return redis.Pass()
	})
	s.Do("SET", "held", secret)
	d := newDesk(t)
	d.env = []string{"PW=" + secret}
	book := d.book("secret.yaml", fmt.Sprintf(`
secrets: {pw: {env: PW}}
targets:
  kv: {kind: redis, addr: %q, password: "${{ secrets.pw }}"}
steps:
  - {id: login, uses: redis.info, target: kv}
  - {id: read, uses: redis.command, target: kv, with: {args: [GET, held]}, effect: read}
  - {id: print, uses: exec, effect: read, with: {shell: "echo \"$PW\"; printf %%s \"$PW\" | base64 -w0; echo \"$PW\" >&2", env: {PW: "${{ secrets.pw }}"}}}
  - {id: file, uses: exec, effect: read, with: {shell: "cat $PW", secret_files: {PW: "${{ secrets.pw }}"}}}
  - {id: told, uses: exec, on-failure: continue, effect: read, with: {shell: "echo \"no: $PW\" >&2; exit 7", env: {PW: "${{ secrets.pw }}"}}}
  - {id: echo, uses: redis.command, on-failure: continue, target: kv, with: {args: [INCR, n]}, effect: write, undo: none}
  - {id: set, uses: redis.config-set, on-failure: continue, target: kv, with: {name: masterauth, value: "${{ secrets.pw }}"}}
  - {id: again, uses: redis.command, target: kv, with: {args: [SET, copy, "${{ secrets.pw }}"]}, effect: write, idempotent: true, undo: none}
  - {id: twice, uses: redis.command, target: kv, with: {args: [GETSET, copy, "other"]}, effect: write, idempotent: true, undo: none}
  - {id: end, uses: check, with: {that: [{check: "false", message: "to see a failed run as well"}]}}
`, s.Addr()))
	first := d.run("exec", book).want(1).says("***")
	d.secretIsNowhere(first, d.run("exec", book, "--output", "json").want(1), d.run("resume", "last").want(1), d.run("resume", "last", "--explain"),
		d.run("exec", "--dry-run", book), d.run("plan", book), d.run("plan", book, "--output", "json"), d.run("runs", "show", "last"),
		d.run("runs", "show", "last", "--output", "json"), d.run("runs", "log", "last"), d.run("runs", "log", "last", "--output", "json"), d.run("runs", "list"))
	if got := s.Do("GET", "copy").Str; got != "other" {
		t.Errorf("copy is %q", got)
	}
}
