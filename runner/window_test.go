package runner

import (
	"testing"
	"testing/synctest"
	"time"

	"runbook/schema"
)

// windowOf binds a window as the resolver does.
func windowOf(t *testing.T, days []string, from, to, zone string) *Window {
	t.Helper()
	decl := &schema.Window{Zone: schema.Leaf[string]{Value: zone, Set: true}}
	for _, d := range days {
		decl.Days = append(decl.Days, schema.Leaf[string]{Value: d, Set: true})
	}
	if from != "" {
		decl.From, decl.To = schema.Leaf[string]{Value: from, Set: true}, schema.Leaf[string]{Value: to, Set: true}
	}
	r := &resolver{loader: &loader{}}
	w := r.window(decl)
	if len(r.findings) > 0 {
		t.Fatal(r.findings)
	}
	return w
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		what           string
		days           []string
		from, to, zone string
		at, opens      string // RFC 3339; opens equal to at: it is open
	}{
		{"open", nil, "10:00", "16:00", "UTC", "2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"},
		{"to is exclusive", nil, "10:00", "16:00", "UTC", "2026-11-22T16:00:00Z", "2026-11-23T10:00:00Z"},
		{"to the last second", nil, "10:00", "16:00", "UTC", "2026-11-22T15:59:59Z", "2026-11-22T15:59:59Z"},
		{"seconds before", nil, "10:00", "16:00", "UTC", "2026-11-22T09:59:01Z", "2026-11-22T10:00:00Z"},
		{"another zone", nil, "10:00", "16:00", "Asia/Shanghai", "2026-11-22T01:00:00Z", "2026-11-22T02:00:00Z"},
		{"half an hour off", nil, "10:00", "16:00", "Asia/Kolkata", "2026-11-22T01:00:00Z", "2026-11-22T04:30:00Z"},
		{"another day", []string{"tue", "wed"}, "10:00", "16:00", "UTC", "2026-11-22T12:00:00Z", "2026-11-24T10:00:00Z"}, // a Sunday
		{"nearly a week", []string{"sat"}, "10:00", "16:00", "UTC", "2026-11-22T12:00:00Z", "2026-11-28T10:00:00Z"},
		{"all day", []string{"mon"}, "", "", "UTC", "2026-11-22T12:00:00Z", "2026-11-23T00:00:00Z"},
		{"over midnight, evening", []string{"sun"}, "22:00", "04:00", "UTC", "2026-11-22T23:00:00Z", "2026-11-22T23:00:00Z"},
		{"over midnight, the morning after", []string{"sun"}, "22:00", "04:00", "UTC", "2026-11-23T03:59:00Z", "2026-11-23T03:59:00Z"},
		{"over midnight, the morning before", []string{"sun"}, "22:00", "04:00", "UTC", "2026-11-22T03:00:00Z", "2026-11-22T22:00:00Z"},
		{"over midnight, over", []string{"sun"}, "22:00", "04:00", "UTC", "2026-11-23T04:00:00Z", "2026-11-29T22:00:00Z"},
		{"to midnight", nil, "22:00", "00:00", "UTC", "2026-11-23T00:00:00Z", "2026-11-23T22:00:00Z"},
		// Berlin's clocks go from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
		{"the day after the clocks", nil, "22:00", "23:00", "Europe/Berlin", "2026-03-28T22:30:00Z", "2026-03-29T20:00:00Z"},
		{"clocks forward into it", nil, "02:30", "05:00", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"},
		{"clocks forward over it", nil, "02:15", "02:45", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-30T00:15:00Z"},
		{"clocks forward over it, once a week", []string{"sun"}, "02:15", "02:45", "Europe/Berlin", "2026-03-23T00:00:00Z", "2026-04-05T00:15:00Z"},
		{"clocks back, first time", nil, "02:15", "02:45", "Europe/Berlin", "2026-10-25T00:20:00Z", "2026-10-25T00:20:00Z"},
		{"clocks back, between", nil, "02:15", "02:45", "Europe/Berlin", "2026-10-25T00:50:00Z", "2026-10-25T01:15:00Z"},
		{"clocks back, second time", nil, "02:15", "02:45", "Europe/Berlin", "2026-10-25T01:20:00Z", "2026-10-25T01:20:00Z"},
		{"a night with 25 hours", []string{"sat"}, "22:00", "04:00", "Europe/Berlin", "2026-10-25T02:59:00Z", "2026-10-25T02:59:00Z"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := windowOf(t, c.days, c.from, c.to, c.zone)
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.Next(at).UTC().Format(time.RFC3339); got != c.opens {
				t.Errorf("%s at %s: it opens %s, want %s", w, c.at, got, c.opens)
			}
			if w.Open(at) != (c.at == c.opens) {
				t.Errorf("%s at %s: open is %v", w, c.at, w.Open(at))
			}
		})
	}
}

// A window is waited for, which is journaled; it counts into no time limit.
func TestWindowOfSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins on Saturday, 2000-01-01 00:00 UTC
		l := newLab(t)
		l.end(l.exec(l.program(bookHead+`
steps:
  - id: night
    timeout: 2h
    steps:
      - {id: a, window: {days: [mon], from: "22:00", to: "04:00", zone: Asia/Shanghai}, timeout: 1m, uses: mem.set, with: {key: a, value: 1}}
  - id: each
    for-each: [1, 2]
    window: {from: "20:00", to: "21:00", zone: Asia/Shanghai}
    steps:
      - {id: b, uses: mem.set, with: {key: "b${{ item }}", value: 1}}
      - {id: hold, uses: sleep, with: {duration: 90m}, timeout: 2h}
`)), Succeeded)
		started := map[string]string{}
		for _, r := range l.records {
			if r.Type == recStepStarted {
				started[r.Step] = r.Time.UTC().Format("Mon 15:04")
			}
		}
		for step, want := range map[string]string{"a": "Mon 14:00", "each[item=1]/b": "Tue 12:00", "each[item=2]/b": "Wed 12:00"} {
			if started[step] != want {
				t.Errorf("%s started %s, want %s", step, started[step], want)
			}
		}
		waits := bodies[StepWaiting](t, l, recStepWaiting)
		if len(waits) != 3 || waits[0].Window != "mon 22:00-04:00 Asia/Shanghai" || waits[0].Until.Format(time.RFC3339) != "2000-01-03T22:00:00+08:00" {
			t.Errorf("waits %+v", waits)
		}
	})
}

// Interrupted while it waits for its window, a step waits on at the resume.
func TestWindowInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.interrupt(l.program(bookHead+`
steps: [{id: a, window: {from: "22:00", to: "23:00", zone: UTC}, uses: mem.set, with: {key: a, value: 1}}]
`), time.Hour)
		shown, err := ReadReport(l.records, false)
		if err != nil {
			t.Fatal(err)
		}
		if a := shown.Find("a"); a.Status != StepWaits || a.Reason != "its window (22:00-23:00 UTC) opens Sat 2000-01-01 22:00 +0000" {
			t.Errorf("it is shown as %s: %s", a.Status, a.Reason)
		}
		began := time.Now()
		l.end(l.resume(), Succeeded)
		if waited := time.Since(began); waited != 21*time.Hour {
			t.Errorf("it waited %s", waited)
		}
	})
}
