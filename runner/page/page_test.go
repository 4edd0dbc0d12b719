package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"runbook/runner"
	"runbook/runner/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var began = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

// records makes a journal of lines "SECONDS TYPE STEP BODY"; a step of - is none.
func records(t *testing.T, text string) []journal.Record {
	t.Helper()
	var list []journal.Record
	for line := range strings.Lines(strings.TrimSpace(text)) {
		var after float64
		var typ, step string
		if _, err := fmt.Sscan(line, &after, &typ, &step); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		body := strings.TrimSpace(line[strings.IndexByte(line, '{'):])
		if !json.Valid([]byte(body)) {
			t.Fatalf("%s is no JSON", body)
		}
		if step == "-" {
			step = ""
		}
		list = append(list, journal.Record{Seq: int64(len(list) + 1), Time: began.Add(time.Duration(after * float64(time.Second))), Type: typ, Step: step, Body: json.RawMessage(body)})
	}
	return list
}

func render(t *testing.T, list []journal.Record, live bool) string {
	t.Helper()
	r, err := runner.ReadReport(list, live)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, Input{Report: r, Records: list, Verdict: "whole", Sound: true}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const moved = `
0    run-started   - {"format":1,"run":"r1","name":"move","plan":"d1","operator":"ana","uid":1,"host":"ops1","pid":7,"version":"v","dir":"/srv","lock":"codis/demo","lock_target":"zk","lock_hold":"run","fence":215,"inputs":{"slots":[1,2]}}
0.1  step-started  caught_up {"attempt":1,"kind":"pika.slot-info","effect":"read","target":"pika1","addr":"127.0.0.1:9221","waiting":"lag == 0"}
1    step-observed caught_up {"holds":false,"values":{"lag":4096}}
2    step-retrying caught_up {"attempt":1,"error":{"message":"connection refused","kind":"dial"},"delay":"1s"}
3    step-observed caught_up {"holds":true,"values":{"lag":0}}
4    step-finished caught_up {"status":"ok","duration":"4s","attempts":2}
5    gate-opened   switch {"message":"Switch?","show":["lag = 0"],"approvals":2}
6    gate-decided  switch {"approved":true,"by":"ben","uid":2,"host":"ops2","tty":"/dev/pts/3","how":"runner approve","reason":"looked at it"}
7    gate-decided  switch {"approved":true,"by":"eve","uid":3,"host":"ops2","ssh":"10.0.0.9","how":"runner approve"}
8    step-started  switch {"attempt":1,"kind":"codis.switch-slot","effect":"cutover","target":"codis","commands":["PUT /api/topom/slots/assign"]}
9    step-finished switch {"status":"changed","duration":"1s","outputs":{"pause":"154.7ms"}}
10   guard-tripped - {"guard":"errors","then":"pause","require":"n < 10","since":"2026-11-22T02:00:09Z","values":{"n":12}}
11   run-paused    - {"reason":"guard errors"}
11   run-finished  - {"status":"paused"}
40000 run-resumed  - {"format":1,"run":"r1","name":"move","plan":"d1","operator":"eve","uid":3,"host":"ops1","pid":9,"version":"v","dir":"/srv","lock":"codis/demo","lock_target":"zk","lock_hold":"run","fence":215}
40000 plan-amended - {"old":"d1","new":"d1","kept":"plan-1.json","changes":["step delete: added"],"reason":"CHG-7","by":"eve","uid":3}
40001 step-started delete {"attempt":1,"kind":"exec","effect":"destroy","commands":["rm -rf <b>&\"'</script>"]}
40002 step-finished delete {"status":"failed","error":{"message":"<script>alert(1)</script>","kind":"exit"}}
40002 run-finished delete {"status":"failed","error":{"message":"<script>alert(1)</script>","kind":"exit"}}
`

// TestPage: a reader finds who asked for what, what was sent, who approved and from where, and what went wrong.
func TestPage(t *testing.T) {
	page := render(t, records(t, moved), false)
	for _, want := range []string{
		"<h1>move <span class=\"state failed\">failed</span></h1>", "ana", "7 on ops1", "9 on ops1", "<code>codis/demo</code>, in zk, fence 215, kept until the run is over", "PUT /api/topom/slots/assign",
		"by <b>ben</b> (uid 2)", "from ops2 /dev/pts/3: looked at it", "by SSH from 10.0.0.9", "asks 2 people",
		"the plan was amended by eve (CHG-7): step delete: added", "guard errors: n &lt; 10 does not hold (n = 12); pause", "154.7ms, in switch", "&lt;script&gt;alert(1)", "11h7m",
		`class="bar runs cutover"`, `class="bar runs destroy"`, `class="bar asks"`, `class="mark retry"`, `class="idle"`, `class="threshold"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "src=") || strings.Contains(page, "href=") {
		t.Error("the page reaches for something, or runs something")
	}
}

// TestKilled: a run that was killed says so, and the step it was in.
func TestKilled(t *testing.T) {
	list := records(t, moved)[:10]
	page := render(t, list, false)
	for _, want := range []string{`<span class="state killed">killed</span>`, "no record of its end", `<span class="state in-doubt">in-doubt</span>`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	if page = render(t, list, true); !strings.Contains(page, `<span class="state running">running</span>`) {
		t.Error("a run under way does not say so")
	}
}

// TestDamage: what is wrong with the journal stands at the top.
func TestDamage(t *testing.T) {
	list := records(t, moved)
	r, err := runner.ReadReport(list, false)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, Input{Report: r, Records: list, Verdict: "damaged: line 3"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `<p class="box bad">Journal: damaged: line 3</p>`) {
		t.Error("the damage does not show")
	}
}

// TestManySteps: a page of a long run stays a page that a browser opens.
func TestManySteps(t *testing.T) {
	var b strings.Builder
	b.WriteString(strings.SplitN(strings.TrimSpace(moved), "\n", 2)[0])
	for i := range 6000 {
		fmt.Fprintf(&b, "\n%d step-started move[slot=%d]/copy {\"attempt\":1,\"kind\":\"exec\",\"effect\":\"write\",\"commands\":[%q]}", i+1, i, strings.Repeat("copy ", 100))
		fmt.Fprintf(&b, "\n%d step-finished move[slot=%d]/copy {\"status\":\"changed\",\"duration\":\"1s\",\"outputs\":{\"copied\":12}}", i+2, i)
	}
	page := render(t, records(t, b.String()), true)
	if len(page) > 5<<20 {
		t.Errorf("it has %d bytes", len(page))
	}
	if !strings.Contains(page, "1000 more steps are not listed") || strings.Count(page, "<svg") != 1 || !strings.Contains(page, "move[…]/copy") && !strings.Contains(page, ">copy<") {
		t.Error("it does not say what it leaves out, or draws a line for each item")
	}
}

// TestAxis: a night without a process takes little room; order is kept.
func TestAxis(t *testing.T) {
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	a := newAxis([]*process{{Began: at(0), Ended: at(10)}, {Began: at(36000), Ended: at(36010)}}, 100)
	for _, c := range []struct{ second, want float64 }{{-5, 0}, {0, 0}, {5, 24}, {10, 48}, {36000, 52}, {36010, 100}, {40000, 100}} {
		if got := a.place(at(c.second)); got < c.want-0.01 || got > c.want+0.01 {
			t.Errorf("second %g lies at %g, want %g", c.second, got, c.want)
		}
	}
	if one := newAxis([]*process{{Began: at(0), Ended: at(0)}}, 100); one.place(at(0)) != 0 {
		t.Error("a run of one instant")
	}
}

func TestThreshold(t *testing.T) {
	for _, c := range []struct {
		condition, name string
		want            float64
		ok              bool
	}{
		{"lag == 0", "lag", 0, true}, {"connected && lag < 1_000", "lag", 1000, true}, {"steps.a.lag < 5", "lag", 0, false},
		{"lag < inputs.most", "lag", 0, false}, {"lags == 3", "lag", 0, false}, {"it.lag >= 2", "it.lag", 2, true},
	} {
		if got, ok := threshold(c.condition, c.name); got != c.want || ok != c.ok {
			t.Errorf("%s of %s: %g %v", c.name, c.condition, got, ok)
		}
	}
}

// TestBrowser: headless Chromium lays the page out without complaint, draws the bars, and prints it.
func TestBrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not there; make setup installs it")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "run.html")
	if err := os.WriteFile(file, []byte(render(t, records(t, moved), false)), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(flags ...string) (out, log string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, browser, append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + filepath.Join(dir, "profile"), "--enable-logging=stderr"}, flags...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.Dir = &stdout, &stderr, dir
		cmd.Env = append(os.Environ(), "HOME="+dir)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, &stderr)
		}
		return stdout.String(), stderr.String()
	}
	dom, log := run("--dump-dom", "file://"+file)
	if strings.Contains(log, "CONSOLE") {
		t.Errorf("the browser complains:\n%s", log)
	}
	if strings.Count(dom, "<rect class=\"bar") != strings.Count(render(t, records(t, moved), false), "<rect class=\"bar") || !strings.Contains(dom, "<polyline") {
		t.Errorf("the browser reads another page:\n%.2000s", dom)
	}
	run("--print-to-pdf="+filepath.Join(dir, "run.pdf"), "--no-pdf-header-footer", "file://"+file)
	pdf, err := os.ReadFile(filepath.Join(dir, "run.pdf"))
	if err != nil || !bytes.HasPrefix(pdf, []byte("%PDF")) || len(pdf) < 10_000 {
		t.Errorf("printed %d bytes: %v", len(pdf), err)
	}
}
