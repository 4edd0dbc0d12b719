package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // 450 KB: a window must not depend on what is installed beside the binary

	"runbook/schema"
)

// Window is when a step may start, by the clock on the wall of its zone. Where that clock
// is put forward it shows no time between, and a window that lies there does not open that
// day; where it is put back, a window that lies there is open both times.
type Window struct {
	Days     []time.Weekday // none: every day. Of a window over midnight, the day it opens
	From, To int            // minutes after midnight, To exclusive; To <= From: over midnight
	Zone     *time.Location
	Decl     *schema.Window
}

const minutesOfDay = 24 * 60

var weekdays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// window binds when a step may start.
func (r *resolver) window(decl *schema.Window) *Window {
	w := &Window{To: minutesOfDay, Zone: time.UTC, Decl: decl}
	for _, day := range decl.Days {
		if i := slices.Index(weekdays[:], day.Value); i >= 0 && !slices.Contains(w.Days, time.Weekday(i)) {
			w.Days = append(w.Days, time.Weekday(i))
		}
	}
	if decl.From.Set && decl.To.Set {
		w.From, w.To = minutes(decl.From.Value), minutes(decl.To.Value)
		if w.From == w.To {
			r.wrong(decl.To.Span, "window", "", "this window ends when it begins; without from and to it is open all day")
		}
	}
	switch zone, err := zone(decl.Zone.Value); {
	case !decl.Zone.Set:
		r.warn(decl.Span, "window-zone", "zone: Asia/Shanghai", "a window without a zone is in UTC: say so, or name the zone")
	case err != nil:
		r.wrong(decl.Zone.Span, "window-zone", nearZone(decl.Zone.Value), "there is no time zone %s: it is a name of the tz database, such as Asia/Shanghai or UTC", decl.Zone.Value)
	default:
		w.Zone = zone
	}
	return w
}

// minutes reads HH:MM; what is none has been reported by the schema.
func minutes(text string) int {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0
	}
	return t.Hour()*60 + t.Minute()
}

// zone finds a zone of the tz database. Local is none: it is another one on every machine.
func zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("unknown time zone %q", name)
	}
	return time.LoadLocation(name)
}

// nearZone is a name that is written otherwise, such as Asia/Shanghai for asia/shanghai.
func nearZone(name string) string {
	parts := strings.Split(strings.ReplaceAll(name, " ", "_"), "/")
	for i, p := range parts {
		words := strings.Split(strings.ToLower(p), "_")
		for j, w := range words {
			if w != "" {
				words[j] = strings.ToUpper(w[:1]) + w[1:]
			}
		}
		parts[i] = strings.Join(words, "_")
	}
	for _, near := range []string{strings.Join(parts, "/"), strings.ToUpper(name)} {
		if _, err := zone(near); err == nil {
			return near
		}
	}
	return ""
}

// Open tells whether a step may start at an instant.
func (w *Window) Open(t time.Time) bool {
	local := t.In(w.Zone)
	at, day := local.Hour()*60+local.Minute(), local.Weekday()
	if w.From < w.To {
		return at >= w.From && at < w.To && w.on(day)
	}
	return at >= w.From && w.on(day) || at < w.To && w.on((day+6)%7)
}

func (w *Window) on(day time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, day) }

// Next is the first instant from t on at which a step may start. Windows open on a minute,
// and repeat every week, or the week after where the clock is put forward over one: looking
// at each minute takes a millisecond and knows every zone.
func (w *Window) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	next := t.Truncate(time.Minute)
	for range 15 * minutesOfDay {
		if next = next.Add(time.Minute); w.Open(next) {
			break
		}
	}
	return next
}

// String is the window in words, such as tue, wed 22:00-04:00 Asia/Shanghai.
func (w *Window) String() string {
	var days []string
	for _, d := range w.Days {
		days = append(days, weekdays[d])
	}
	words := []string{w.Zone.String()}
	if w.From != 0 || w.To != minutesOfDay {
		words = []string{fmt.Sprintf("%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.To/60, w.To%60), w.Zone.String()}
	}
	if len(days) > 0 {
		words = append([]string{strings.Join(days, ", ")}, words...)
	}
	return strings.Join(words, " ")
}

// awaitWindow waits until a step may start, and says whether it had to. That time counts
// into no time limit. The halt is of a run that ends meanwhile.
func (x *run) awaitWindow(ctx context.Context, s *scope, n *Node, path string) (waited bool, h *halt) {
	w := n.Window
	if w == nil || x.dry != nil || s.mustRun(n) || w.Open(x.clock.Now()) {
		return false, nil
	}
	until := w.Next(x.clock.Now())
	if err := x.durable(ctx, recStepWaiting, path, &StepWaiting{Window: w.String(), Until: until.In(w.Zone)}); err != nil {
		return true, broken(path, err)
	}
	defer x.atGate(ctx)()
	for now := x.clock.Now(); !w.Open(now); now = x.clock.Now() {
		if err := x.pause(ctx, min(w.Next(now).Sub(now.Round(0)), wallLook)); err != nil {
			return true, haltFor(err, path)
		}
	}
	return true, nil
}
