package runner

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbook/runner/journal"
	"runbook/schema"
	"runbook/steps"
)

type shelf struct {
	Addr     string `yaml:"addr,required" doc:"Address."`
	Password string `yaml:"password" doc:"Password."`
}

// shelves adds a system with addresses: shelf.get reads a key of one, shelf.set sets it,
// tells what is there before, and refuses what is locked; shelf.count and other.count
// count its keys.
func shelves(l *lab) {
	at := func(ctx context.Context, v *steps.View, key string) (string, int, error) {
		t, err := v.Target("")
		if err != nil {
			return "", 0, err
		}
		place := key + "@" + t.Addr()
		now := l.w.get(place)
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		return place, now, l.w.fail["get "+place]
	}
	plan := func(word string) func(context.Context, *steps.View, memIn) (steps.Change, error) {
		return func(ctx context.Context, v *steps.View, in memIn) (steps.Change, error) {
			line := steps.Line{Command: fmt.Sprintf("%s %s %d", word, in.Key, in.Value), To: fmt.Sprint(in.Value)}
			if v == nil {
				return steps.Change{Lines: []steps.Line{line}}, nil
			}
			_, now, err := at(ctx, v, in.Key)
			line.From = fmt.Sprint(now)
			keys := int64(now * 100)
			line.Keys = &keys
			return steps.Change{Lines: []steps.Line{line}}, err
		}
	}
	set := &steps.Kind[memIn, memOut]{
		Name: "shelf.set", Doc: "Sets.", On: []string{"shelf"}, Effect: steps.Write, Idempotent: true, NoUndo: "no",
		Check: func(ctx context.Context, v steps.View, _ memIn) error {
			if _, locked, err := at(ctx, &v, "lock"); err != nil || locked != 0 {
				return errors.Join(err, steps.Precondition("it is locked by %d", locked))
			}
			return nil
		},
		Plan: plan("put"),
		Probe: func(ctx context.Context, v steps.View, in memIn) (steps.State, memOut, error) {
			_, now, err := at(ctx, &v, in.Key)
			if err == nil && now == in.Value {
				return steps.Done, memOut{Value: now}, nil
			}
			return steps.Untouched, memOut{}, err
		},
		Apply: func(_ context.Context, s steps.Session, in memIn) (memOut, error) {
			t, err := s.Target("")
			if err != nil {
				return memOut{}, err
			}
			return memOut{Value: in.Value}, l.w.act(in.Key, func() {
				l.w.value[in.Key+"@"+t.Addr()] = in.Value
				l.w.log = append(l.w.log, "put "+in.Key)
			})
		},
	}
	get := &steps.Kind[memGetIn, memGetOut]{
		Name: "shelf.get", Doc: "Gets.", On: []string{"shelf"}, Effect: steps.Read,
		Read: func(ctx context.Context, v steps.View, in memGetIn) (memGetOut, error) {
			_, now, err := at(ctx, &v, in.Key)
			return memGetOut{Value: now}, err
		},
	}
	l.w.kinds = append(l.w.kinds, (&steps.TargetKind[shelf, struct{}]{Name: "shelf", Addr: func(s shelf) string { return s.Addr }}).Define())
	type counted struct {
		Total int64 `yaml:"total,keys" doc:"Keys."`
	}
	count := func(name string) *steps.Definition {
		return (&steps.Kind[memGetIn, counted]{Name: name, Doc: "Counts.", On: []string{"shelf"}, Effect: steps.Read,
			Read: func(context.Context, steps.View, memGetIn) (counted, error) { return counted{5}, nil }}).Define()
	}
	l.w.extra = append(l.w.extra, set.Define(), get.Define(), count("shelf.count"), count("other.count"))
}

const shelfHead = bookHead + "targets: {a: {kind: shelf, addr: \"one:1\"}, b: {kind: shelf, addr: \"two:2\"}}\n"

// observe asks the targets of a runbook.
func (l *lab) look(p *Program) *Observation {
	l.t.Helper()
	o, err := Look(l.context(), l.config(), l.request(p))
	if err != nil {
		l.t.Fatalf("look: %v", err)
	}
	return o
}

func (l *lab) request(p *Program) Request {
	l.t.Helper()
	in, findings, err := p.BindInputs(GivenInputs{})
	if err != nil || len(findings) > 0 {
		l.t.Fatalf("inputs: %v %v", findings, err)
	}
	return Request{Program: p, Inputs: in, Dir: l.t.TempDir()}
}

// save keeps the plan of a runbook as a file would, good for a day.
func (l *lab) save(p *Program) *SavedPlan {
	l.t.Helper()
	raw, _, err := SavePlan(l.config(), l.request(p), l.look(p), 24*time.Hour)
	if err != nil {
		l.t.Fatalf("save: %v", err)
	}
	saved, err := ReadSavedPlan(raw)
	if err != nil {
		l.t.Fatalf("read: %v", err)
	}
	return saved
}

// carryOut runs a saved plan.
func (l *lab) carryOut(saved *SavedPlan) (*Result, error) {
	l.t.Helper()
	p, in, err := saved.Program(l.w.catalog(), nil)
	if err != nil {
		return nil, err
	}
	return Execute(l.context(), l.config(), Request{Program: p, Inputs: in, Selection: saved.Plan.Selection, Dir: saved.Plan.Dir, Saved: saved})
}

// wantUsage wants an error of exit 2 that says all of these.
func wantUsage(t *testing.T, err error, words ...string) {
	t.Helper()
	var usage *UsageError
	if !errors.As(err, &usage) {
		t.Fatalf("got %v (%T), want a *UsageError", err, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+"\n"+usage.Hint, w) {
			t.Errorf("wants %q in\n%v\nhelp: %s", w, err, usage.Hint)
		}
	}
}

func TestDriftOfEachFact(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, steps string
		then, now   map[string]int // of the world
		cut         string         // a read that fails now
		want        []string       // nil: it runs
	}{
		{name: "nothing changed", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`},
		{name: "already so, and is not any more", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`,
			then: map[string]int{"x@one:1": 1}, now: map[string]int{"x@one:1": 4},
			want: []string{"s on a: state: already so → would change: put x 1 (4 with 400 keys → 1)"}},
		{name: "somebody has done it", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`, now: map[string]int{"x@one:1": 1},
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → already so"}},
		{name: "somebody has done it, as expected", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}, expect: value == 1}]`, now: map[string]int{"x@one:1": 1},
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → already so"}},
		{name: "what is there before", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`, now: map[string]int{"x@one:1": 7},
			want: []string{"s on a: before: 0 → 7"}},
		{name: "a precondition of the kind", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`, now: map[string]int{"lock@one:1": 9},
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → would fail: it is locked by 9"}},
		{name: "an expect", steps: `[{id: r, uses: shelf.get, target: b, with: {key: x}, expect: value < 5}]`, now: map[string]int{"x@two:2": 5},
			want: []string{"r on b: state: ok → would fail: expect: value < 5 does not hold (value = 5)", "r on b: expect value < 5: true (value = 0) → false (value = 5)"}},
		{name: "a when", steps: `[{id: r, uses: shelf.get, target: b, with: {key: x}}, {id: s, uses: shelf.set, target: a, when: steps.r.value == 0, with: {key: x, value: 1}}]`, now: map[string]int{"x@two:2": 5},
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → would be skipped", "s on a: when steps.r.value == 0: true (steps.r.value = 0) → false (steps.r.value = 5)"}},
		{name: "a require", steps: `[{id: r, uses: shelf.get, target: b, with: {key: x}}, {id: g, require: steps.r.value < 5, steps: [{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]}]`, now: map[string]int{"x@two:2": 5},
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → is not looked at any more", "g: state: ok → would fail: require: steps.r.value < 5 does not hold (steps.r.value = 5)", "g: require steps.r.value < 5: true (steps.r.value = 0) → false (steps.r.value = 5)"}},
		{name: "items of a loop", steps: `[{id: r, uses: shelf.get, target: b, with: {key: n}}, {id: l, for-each: "filter([1, 2, 3], # <= steps.r.value)", uses: shelf.get, target: a, with: {key: "k${{ item }}"}}]`, then: map[string]int{"n@two:2": 1}, now: map[string]int{"n@two:2": 2},
			want: []string{"l: items: 1 → 1, 2"}},
		{name: "a loop that had no item", steps: `[{id: r, uses: shelf.get, target: b, with: {key: n}}, {id: l, for-each: "filter([1, 2, 3], # <= steps.r.value)", uses: shelf.get, target: a, with: {key: "k${{ item }}"}}]`, now: map[string]int{"n@two:2": 2},
			want: []string{"l: items: none → 1, 2"}},
		{name: "an address", steps: `[{id: r, uses: shelf.get, target: b, with: {key: port}}, {id: s, uses: shelf.set, target: {kind: shelf, addr: "host:${{ steps.r.value }}"}, with: {key: x, value: 1}}]`, now: map[string]int{"port@two:2": 5},
			want: []string{"s on s: address of s: host:0 → host:5"}},
		{name: "an input that a read gives", steps: `[{id: r, uses: shelf.get, target: b, with: {key: x}}, {id: s, uses: shelf.set, target: a, with: {key: x, value: "${{ steps.r.value + 1 }}"}}]`, now: map[string]int{"x@two:2": 5},
			want: []string{"s on a: with value: 1 → 6", "s on a: sends: put x 1 → put x 6", "s on a: after: 1 → 6"}},
		{name: "a target that is gone", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]`, cut: "x@one:1",
			want: []string{"s on a: state: would change: put x 1 (0 with 0 keys → 1) → would fail: connection refused"}},
		{name: "a read that is gone, and may fail", steps: `[{id: r, uses: shelf.get, target: a, on-failure: continue, with: {key: x}}]`, cut: "x@one:1",
			want: []string{"r on a: state: ok → would fail: connection refused"}},

		{name: "a value that nothing rests on", steps: `[{id: r, uses: shelf.get, target: a, with: {key: x}}, {id: v, uses: set, with: {values: {n: "${{ steps.r.value }}"}}}, {id: c, uses: check, with: {that: [steps.r.value < 100]}}]`, now: map[string]int{"x@one:1": 7}},
		{name: "a value below its bound", steps: `[{id: r, uses: shelf.get, target: a, with: {key: x}, expect: value < 5}]`, now: map[string]int{"x@one:1": 4}},
		{name: "what a read is asked", steps: `[{id: r, uses: shelf.get, target: a, with: {key: x}}, {id: q, uses: shelf.get, target: b, with: {key: "k${{ steps.r.value }}"}}]`, now: map[string]int{"x@one:1": 4}},
		{name: "a wait that is not over any more", steps: `[{id: w, uses: shelf.get, target: a, with: {key: lag}, wait-until: value == 0, timeout: 1m, on-failure: continue}]`, now: map[string]int{"lag@one:1": 4}},
		{name: "what hangs on a wait", steps: `[{id: w, uses: shelf.get, target: a, with: {key: lag}, wait-until: value == 0, timeout: 1m}, {id: s, uses: shelf.set, target: b, with: {key: x, value: "${{ steps.w.value }}"}}]`, then: map[string]int{"x@two:2": 9}, now: map[string]int{"lag@one:1": 4},
			want: []string{"s on b: state: would change: put x 0 (9 with 900 keys → 0) → unknown (because of step w)"}},
		{name: "what was unknown", steps: `[{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}, {id: r, uses: shelf.get, target: a, with: {key: y}, expect: value == 0}]`, now: map[string]int{"y@one:1": 0}},
		{name: "the id of the run", steps: `[{id: s, uses: shelf.set, target: a, with: {key: "k${{ run.id }}", value: 1}}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				shelves(l)
				for k, v := range c.then {
					l.w.value[k] = v
				}
				saved := l.save(l.program(shelfHead + "steps: " + c.steps + "\n"))
				for k, v := range c.now {
					l.w.value[k] = v
				}
				if c.cut != "" {
					l.w.fail["get "+c.cut] = steps.Errorf("refused", "connection refused")
				}
				before := l.w.state()
				_, err := l.carryOut(saved)
				if c.want == nil {
					if err != nil {
						for _, d := range errorsDrift(err) {
							t.Log(d)
						}
						t.Fatal(err)
					}
					return
				}
				var got []string
				for _, d := range errorsDrift(err) {
					got = append(got, d.String())
				}
				if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
					t.Errorf("drift\n%s\nwant\n%s\n(%v)", strings.Join(got, "\n"), strings.Join(c.want, "\n"), err)
				}
				if l.w.state() != before || len(l.w.log) > 0 {
					t.Errorf("world %s, log %v: something was done", l.w.state(), l.w.log)
				}
				if runs, _ := l.store.List(); len(runs) > 0 {
					t.Errorf("%d runs", len(runs))
				}
				if err := saved.Usable(l.store, time.Now()); err != nil {
					t.Errorf("it is used up: %v", err)
				}
			})
		})
	}
}

func errorsDrift(err error) []Drift {
	var d *DriftError
	if errors.As(err, &d) {
		return d.Drifts
	}
	return nil
}

const savedBook = shelfHead + "steps: [{id: s, uses: shelf.set, target: a, with: {key: x, value: 1}}]\n"

func TestASavedPlanHasOneUse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	saved := l.save(l.program(savedBook))
	r, err := l.carryOut(saved)
	if err != nil {
		t.Fatal(err)
	}
	l.end(r, Succeeded)
	var began RunStarted
	if err := l.records[0].Decode(&began); err != nil || began.Saved == nil || began.Saved.ID != saved.ID || began.Saved.Operator != "ana" || !began.Saved.Created.Equal(saved.Created) {
		t.Errorf("%v: the run began with %+v", err, began.Saved)
	}
	delete(l.w.value, "x@one:1") // the world is as it was observed
	_, err = l.carryOut(saved)
	wantUsage(t, err, "used already, by run "+r.Run+" of ana, at ", "runner runs show "+r.Run, "plan again")
	if len(l.w.log) != 1 {
		t.Errorf("done %v", l.w.log)
	}
	l.store = journal.Store{Dir: t.TempDir()} // which does not know
	if r, err = l.carryOut(saved); err != nil {
		t.Fatal(err)
	}
	l.end(r, Succeeded)
}

func TestASavedPlanExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		shelves(l)
		saved := l.save(l.program(savedBook))
		time.Sleep(24*time.Hour + time.Minute) // of the bubble
		_, err := l.carryOut(saved)
		wantUsage(t, err, "expired at", "1m ago", "plan again")
		if len(l.w.log) > 0 {
			t.Errorf("done %v", l.w.log)
		}
	})
	synctest.Test(t, func(t *testing.T) { // by the engine's clock, not the machine's
		l := newLab(t)
		shelves(l)
		saved := l.save(l.program(savedBook))
		l.clock = FastClock{Start: time.Now(), Speed: 3600}
		time.Sleep(30 * time.Second) // are 30 hours
		_, err := l.carryOut(saved)
		wantUsage(t, err, "expired at")
	})
}

func TestAnEditedPlanIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	p := l.program(savedBook)
	raw, _, err := SavePlan(l.config(), l.request(p), l.look(p), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for name, c := range map[string]struct{ text, want string }{
		"a source":       {strings.Replace(text, `value: 1`, `value: 2`, 1), "it is not what was written"},
		"a fact":         {strings.Replace(text, `"from": "0"`, `"from": "3"`, 1), "it is not what was written"},
		"the expiry":     {strings.Replace(text, `"expires": "20`, `"expires": "21`, 1), "it is not what was written"},
		"the id":         {strings.Replace(text, `"id": "`, `"id": "0`, 1), "it is not what was written"},
		"an added field": {strings.Replace(text, `"format": 1`, `"format": 1, "x": 2`, 1), "unknown field"},
		"a newer format": {strings.Replace(text, `"format": 1`, `"format": 2`, 1), "has format 2, this binary knows format 1"},
		"a torn file":    {text[:len(text)/2], "damaged"},
		"a frozen plan":  {`{"format": 1, "digest": "x"}`, "this is no saved plan"},
		"nothing":        {"", "damaged"},
	} {
		if c.text == text {
			t.Fatalf("%s: nothing was edited", name)
		}
		_, err := ReadSavedPlan([]byte(c.text))
		wantUsage(t, err, c.want)
	}
	var compact map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&compact); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(compact)
	if _, err := ReadSavedPlan(again); err != nil {
		t.Errorf("another layout: %v", err)
	}
}

func TestASavedPlanOfOtherKindsIsRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	saved := l.save(l.program(savedBook))
	l.w.extra[0].Effect = steps.Cutover
	_, err := l.carryOut(saved)
	wantUsage(t, err, "step kinds that the plan uses differ between this binary and the one that made it", "or run it with version test")
}

// Of many who try at the same moment one runs.
func TestARaceForASavedPlan(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	saved := l.save(l.program(savedBook))
	const racers = 8
	var wg sync.WaitGroup
	results, errs := make([]*Result, racers), make([]error, racers)
	cfg := l.config()
	cfg.Observe = nil
	for i := range racers {
		p, in, err := saved.Program(l.w.catalog(), nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			results[i], errs[i] = Execute(t.Context(), cfg, Request{Program: p, Inputs: in, Dir: saved.Plan.Dir, Saved: saved})
		})
	}
	wg.Wait()
	won := 0
	for i, r := range results {
		var drift *DriftError
		switch {
		case r != nil:
			won++
		case errors.As(errs[i], &drift): // it has looked after the winner had acted
		default:
			wantUsage(t, errs[i], "used already, by run ")
		}
	}
	if runs, _ := l.store.List(); won != 1 || len(l.w.log) != 1 || len(runs) != 1 {
		t.Errorf("%d of them ran, %d runs, done %v", won, len(runs), l.w.log)
	}
}

// A process that dies between the mark and its first record leaves a plan that is used up.
func TestACrashBetweenMarkAndStart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	saved := l.save(l.program(savedBook))
	runs := filepath.Join(l.store.Dir, "runs")
	if err := os.WriteFile(runs, nil, 0o600); err != nil { // where the run's folder cannot be made
		t.Fatal(err)
	}
	if _, err := l.carryOut(saved); err == nil {
		t.Fatal("it ran")
	}
	if err := os.Remove(runs); err != nil {
		t.Fatal(err)
	}
	_, err := l.carryOut(saved)
	wantUsage(t, err, "used already, by run ", "plan again")
	if len(l.w.log) > 0 {
		t.Errorf("done %v", l.w.log)
	}
}

func TestALockedRunLeavesThePlanGood(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	saved := l.save(l.program(strings.Replace(savedBook, "targets:", "lock: {name: shelf}\ntargets:", 1)))
	held, err := l.store.Lock("shelf", journal.Holder{Run: "other"})
	if err != nil {
		t.Fatal(err)
	}
	var locked *journal.LockedError
	if _, err := l.carryOut(saved); !errors.As(err, &locked) {
		t.Fatalf("got %v", err)
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	r, err := l.carryOut(saved)
	if err != nil {
		t.Fatal(err)
	}
	l.end(r, Succeeded)
}

func TestAPlanKnownToFailIsNotSaved(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	shelves(l)
	p := l.program(shelfHead + "steps: [{id: s, uses: shelf.set, target: a, require: 1 > 2, with: {key: x, value: 1}}]\n")
	o := l.look(p)
	if err := o.Failed(); err == nil || !strings.Contains(err.Error(), "s: require: 1 > 2 does not hold") {
		t.Errorf("failed: %v", err)
	}
	_, _, err := SavePlan(l.config(), l.request(p), o, time.Hour)
	wantUsage(t, err, "known to fail: s: require: 1 > 2")
}

// No form of a secret is in a saved plan or in what a plan with --live shows, wherever it is used and whoever says it.
func TestASavedPlanHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = `S3cr&t/Pa+ss "w0rd" =ü`
	quoted, _ := json.Marshal(secret)
	forms := map[string]string{
		"plain": secret, "JSON": strings.Trim(string(quoted), `"`), "JSON, quotes": strings.ReplaceAll(secret, `"`, `\"`),
		"base64": base64.StdEncoding.EncodeToString([]byte(secret)), "base64, raw": base64.RawStdEncoding.EncodeToString([]byte(secret)),
		"base64, for URL": base64.URLEncoding.EncodeToString([]byte(secret)), "URL, query": url.QueryEscape(secret), "URL, path": url.PathEscape(secret),
	}
	said := ""
	for _, f := range forms {
		said += " " + f
	}
	l := newLab(t)
	l.environ = map[string]string{"PW": secret}
	shelves(l)
	type in struct {
		Text string            `yaml:"text" doc:"Text."`
		Env  map[string]string `yaml:"env" doc:"Environment."`
	}
	type out struct {
		Text string `yaml:"text" doc:"Text."`
	}
	l.w.extra = append(l.w.extra,
		(&steps.Kind[in, out]{Name: "leak.read", Doc: "Says.", On: []string{"shelf"}, Effect: steps.Read,
			Read: func(context.Context, steps.View, in) (out, error) { return out{said}, nil }}).Define(),
		(&steps.Kind[in, out]{Name: "leak.fail", Doc: "Fails.", On: []string{"shelf"}, Effect: steps.Read,
			Read: func(context.Context, steps.View, in) (out, error) { return out{}, errors.New(said) }}).Define(),
		(&steps.Kind[in, out]{Name: "leak.write", Doc: "Writes.", On: []string{"shelf"}, Effect: steps.Write, AuthorKnows: true, NoUndo: "no",
			Plan: func(_ context.Context, v *steps.View, in in) (steps.Change, error) {
				if v == nil {
					return steps.Change{Lines: []steps.Line{{Command: "say " + in.Text}}}, nil
				}
				return steps.Change{Lines: []steps.Line{{Target: "a", Command: "say " + in.Text + said, From: said, To: said}}}, nil
			},
			Apply: func(context.Context, steps.Session, in) (out, error) { return out{said}, nil }}).Define())
	p := l.program(bookHead + `
secrets: {pw: {env: PW}}
targets:
  a: {kind: shelf, addr: "one:1", password: "${{ secrets.pw }}"}
steps:
  - {id: r, uses: leak.read, target: a, with: {text: "${{ secrets.pw }}", env: {PW: "${{ secrets.pw }}"}}, expect: text contains " "}
  - {id: f, uses: leak.fail, target: a, on-failure: continue}
  - {id: l, for-each: "[steps.r.text]", uses: leak.read, target: a, with: {text: "${{ item }}"}}
  - {id: i, uses: leak.read, target: {kind: shelf, addr: "${{ steps.r.text }}", password: "${{ secrets.pw }}"}, with: {text: x}, when: steps.r.text contains " "}
  - {id: w, uses: leak.write, target: a, require: steps.r.text contains " ", with: {text: "${{ secrets.pw }}", env: {PW: "${{ steps.r.text }}"}}}
`)
	seen := l.look(p)
	raw, _, err := SavePlan(l.config(), l.request(p), seen, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	plan, findings, err := MakeLivePlan(p, l.request(p).Inputs, Selection{}, seen, Operator{Name: "ana"})
	if err != nil || schema.Failed(findings) {
		t.Fatal(err, findings)
	}
	var text strings.Builder
	if err := plan.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	answer, _ := json.Marshal(plan)
	for where, holds := range map[string]string{"the saved plan": string(raw), "the text": text.String(), "the JSON": string(answer)} {
		if !strings.Contains(holds, SecretText("pw")) {
			t.Errorf("%s does not name the secret: is it asked at all?", where)
		}
		for name, form := range forms {
			if at := strings.Index(holds, form); at >= 0 {
				t.Errorf("%s holds the secret (%s): …%s…", where, name, holds[max(0, at-120):min(len(holds), at+60)])
			}
		}
	}
}
