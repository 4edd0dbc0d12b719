package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"runbook/runner"
	"runbook/runner/journal"
)

// view shows a run while it goes on: records become lines of standard error, or JSON
// lines of standard output; on a terminal a few lines at the bottom tell what runs now.
//
// The engine hands records over inside the journal's lock, so they are queued here and
// shown by a goroutine of the view: a slow terminal never holds up a run.
type view struct {
	app    *app
	dry    bool
	report *runner.Report
	order  []string // paths of the plan's steps, for what comes next
	next   int

	mu      sync.Mutex
	earlier []journal.Record // of earlier processes: taken in, not shown
	queue   []journal.Record
	ticks   map[string]runner.Tick
	wake    chan struct{}
	done    chan struct{}
	closed  bool
	finish  sync.WaitGroup

	screen  sync.Mutex // who writes to the terminal
	live    bool
	drawn   int  // lines of the bottom on the screen
	asks    bool // a person is there to answer gates
	asking  bool
	prompt  string // what stands at the bottom and waits for a line; empty: nothing
	moved   bool   // lines have come behind it: it is to be written again
	cadence map[string]*pace
	began   map[string]time.Time // when a step under way was first seen here
	broken  error                // of standard output
}

// pace spaces the observations of one wait: soon at first, then ever more rarely.
type pace struct {
	last time.Time
	gap  time.Duration
}

func (a *app) view(plan *runner.Plan, dry bool) *view {
	v := &view{app: a, dry: dry, report: runner.NewReport(), ticks: map[string]runner.Tick{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		cadence: map[string]*pace{}, began: map[string]time.Time{}}
	v.live = a.live(dry)
	var walk func(list []*runner.PlanStep)
	walk = func(list []*runner.PlanStep) {
		for _, s := range list {
			if s.Shape == runner.ShapeStep {
				v.order = append(v.order, s.Path)
			}
			walk(s.Steps)
		}
	}
	if plan != nil && v.live {
		walk(plan.Steps)
		walk(plan.Finally)
	}
	return v
}

// live tells whether a run is shown on a screen of which the bottom can be drawn anew.
func (a *app) live(dry bool) bool { return !a.json() && !dry && a.color(a.err) && terminal(a.err) }

// attach puts the view and the prompt between the engine and the person.
func (v *view) attach(cfg *runner.Config) {
	cfg.Observe = func(r journal.Record) {
		v.mu.Lock()
		v.queue = append(v.queue, r)
		v.mu.Unlock()
		v.poke()
	}
	cfg.Recall = func(all []journal.Record) {
		v.mu.Lock()
		v.earlier = all
		v.mu.Unlock()
		v.poke()
	}
	cfg.Progress = func(t runner.Tick) {
		v.mu.Lock()
		v.ticks[t.Step] = t
		v.mu.Unlock()
	}
	if terminal(v.app.in) && terminal(v.app.err) && !v.dry {
		cfg.Ask, v.asks = v.ask, true
	}
	v.app.shown.Store(v)
	v.finish.Add(1)
	go v.loop()
}

func (v *view) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func (v *view) loop() {
	defer v.finish.Done()
	var tick <-chan time.Time
	if v.live {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-v.wake:
			v.show()
			select { // a run of quick steps is shown in pieces, not woken up for each record
			case <-time.After(showEvery):
			case <-v.done:
			}
			v.promptAgain()
		case <-tick:
			v.repaint()
		case <-v.done:
			v.show()
			v.screen.Lock()
			v.erase()
			v.screen.Unlock()
			return
		}
	}
}

// showEvery is the least time between two writes to the screen: too short to be noticed.
const showEvery = 20 * time.Millisecond

// close shows what is queued and leaves the screen clean.
func (v *view) close() {
	v.mu.Lock()
	was := v.closed
	v.closed = true
	v.mu.Unlock()
	if !was {
		close(v.done)
	}
	v.finish.Wait()
}

// show takes the queue and writes its lines.
func (v *view) show() {
	v.screen.Lock() // before the queue is taken: what was taken first is written first
	defer v.screen.Unlock()
	v.mu.Lock()
	earlier, records := v.earlier, v.queue
	v.earlier, v.queue = nil, nil
	v.mu.Unlock()
	if len(earlier)+len(records) == 0 {
		return
	}
	v.erase()
	var events []byte
	var lines []runner.Line
	for _, r := range earlier {
		if err := v.report.Add(r); err != nil {
			fmt.Fprintln(v.app.err, err)
		}
	}
	for _, r := range records {
		if err := v.report.Add(r); err != nil {
			fmt.Fprintln(v.app.err, err)
			continue
		}
		v.note(r)
		if v.app.json() {
			events = append(append(events, r.Event()...), '\n')
			continue
		}
		if v.dry && r.Type == "run-started" {
			v.app.lines(v.app.err, v.lines(r))
			continue
		}
		lines = append(lines, v.lines(r)...)
	}
	if len(events) > 0 && v.broken == nil {
		_, v.broken = v.app.out.Write(events)
	}
	w := v.app.err
	if v.dry {
		w = v.app.out // what a dry run finds is its answer
	}
	if v.prompt != "" && !v.moved && len(lines) > 0 {
		fmt.Fprintln(v.app.err)
		v.moved = true
	}
	v.app.lines(w, lines)
	v.paint()
}

// note keeps what the bottom of the screen shows.
func (v *view) note(r journal.Record) {
	switch r.Type {
	case "step-started":
		if _, seen := v.began[r.Step]; !seen {
			v.began[r.Step] = time.Now()
		}
	case "step-finished", "undo-finished":
		delete(v.began, r.Step)
		delete(v.cadence, r.Step)
		v.mu.Lock()
		delete(v.ticks, r.Step)
		v.mu.Unlock()
	}
}

// lines are what a record is for people, if anything.
func (v *view) lines(r journal.Record) []runner.Line {
	switch r.Type {
	case "run-started", "run-resumed":
		if !v.dry { // before all else: who is to resume it after whatever end must know it
			fmt.Fprintln(v.app.out, v.report.Run)
		}
	case "step-observed":
		if v.live || !v.due(r) {
			return nil
		}
	case "step-started":
		if v.live {
			return nil
		}
	case "gate-opened":
		if v.asks && !v.report.Detached(r.Step) {
			return nil // the prompt says it, or --approve the answer
		}
	case "step-finished":
		if s := v.report.Find(r.Step); s != nil && s.Group && s.Status != "failed" && s.Status != "skipped" {
			return nil // a group: its steps have said it
		}
	}
	return v.report.Describe(r)
}

// due spaces observations of one wait: at once, then after 10 s, 20 s, … 5 min of the run's time.
func (v *view) due(r journal.Record) bool {
	p := v.cadence[r.Step]
	if p == nil {
		v.cadence[r.Step] = &pace{last: r.Time, gap: 10 * time.Second}
		return true
	}
	if r.Time.Sub(p.last) < p.gap {
		return false
	}
	p.last, p.gap = r.Time, min(2*p.gap, 5*time.Minute)
	return true
}

func (v *view) repaint() {
	v.screen.Lock()
	defer v.screen.Unlock()
	v.erase()
	v.paint()
}

// erase takes the bottom lines off the screen.
func (v *view) erase() {
	if v.drawn > 0 {
		fmt.Fprintf(v.app.err, "\x1b[%dA\r\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// most is how many steps under way are shown by name.
const most = 6

// paint draws what runs now, how far it is, and what comes next.
func (v *view) paint() {
	if !v.live || v.asking {
		return
	}
	select {
	case <-v.done:
		return
	default:
	}
	width, _, err := term.GetSize(int(v.app.err.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	var lines []string
	running := v.report.Running()
	for i, s := range running {
		if i == most {
			lines = append(lines, fmt.Sprintf("  and %d more", len(running)-most))
			break
		}
		lines = append(lines, v.running(s))
	}
	if next := v.upcoming(); next != "" && len(running) > 0 {
		lines = append(lines, "  next: "+next)
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(v.app.paint(v.app.err, runner.Faint, cut(clean(l), width-1)))
		b.WriteByte('\n')
	}
	fmt.Fprint(v.app.err, b.String())
	v.drawn = len(lines)
}

func (v *view) running(s *runner.ReportStep) string {
	line := "▸ " + s.Path
	if began, ok := v.began[s.Path]; ok {
		line += " " + time.Since(began).Round(time.Second).String()
	}
	if s.Undo == "undoing" {
		line += " (putting back)"
	}
	if s.Attempts > 1 {
		line += fmt.Sprintf(" (attempt %d)", s.Attempts)
	}
	v.mu.Lock()
	tick, ok := v.ticks[s.Path]
	v.mu.Unlock()
	if ok {
		line += ": " + tick.Words()
	}
	if s.Observed != nil {
		line += ": " + s.Observed.Words()
	} else if s.Waiting != "" {
		line += ": until " + s.Waiting
	}
	return line
}

// upcoming is the first step of the plan that has not begun.
func (v *view) upcoming() string {
	for v.next < len(v.order) && v.report.Find(v.order[v.next]) != nil {
		v.next++
	}
	if v.next < len(v.order) {
		return v.order[v.next]
	}
	return ""
}

// cut shortens a line to the width of the screen, in runes: what it holds is mostly ASCII.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// end says how the run ended, once its last record has been shown.
func (v *view) end(result *runner.Result) {
	if v.app.json() {
		if v.broken != nil {
			fmt.Fprintf(v.app.err, "write the events: %v\n", v.broken)
		}
		return
	}
	summary := v.report.Summary(false)
	if v.report.Status == "" { // the journal could not take the last record
		summary = []runner.Line{{Tone: runner.Bad, Text: fmt.Sprintf("run %s: %s", result.Run, result.Status)}}
		if result.Err != nil {
			summary = append(summary, runner.Line{Tone: runner.Bad, Text: result.Err.Error()})
		}
		if result.Hint != "" {
			summary = append(summary, runner.Line{Text: "help: " + result.Hint})
		}
	}
	w := v.app.err
	if v.dry {
		w = v.app.out
	}
	v.app.lines(w, summary)
	for _, name := range sorted(v.report.Outputs) {
		fmt.Fprintf(v.app.out, "%s = %s\n", name, clean(runner.ShowValue(v.report.Outputs[name])))
	}
}
