package page

import "time"

// axis maps times to places on a line of a width. Time that no process lived in is drawn short: a night between two
// halves of a run must not make a line of its two halves.
type axis struct {
	pieces []piece
	width  float64
}

type piece struct {
	from, till time.Time
	at, width  float64
	idle       bool
}

// idleWidth is the part of the width that one stretch without a process gets at most.
const idleWidth = 0.04

func newAxis(processes []*process, width float64) *axis {
	a := &axis{width: width}
	var busy time.Duration
	for i, p := range processes {
		if i > 0 {
			if before := processes[i-1]; p.Began.After(before.Ended) {
				a.pieces = append(a.pieces, piece{from: before.Ended, till: p.Began, idle: true})
			}
		}
		a.pieces = append(a.pieces, piece{from: p.Began, till: p.Ended})
		busy += max(p.Ended.Sub(p.Began), time.Millisecond)
	}
	free, gaps := width, 0
	for _, p := range a.pieces {
		if p.idle {
			gaps++
		}
	}
	gap := min(idleWidth*width, width/2/float64(max(gaps, 1)))
	for i := range a.pieces {
		p := &a.pieces[i]
		if p.idle {
			p.width = min(gap, width*float64(p.till.Sub(p.from))/float64(busy))
			free -= p.width
		}
	}
	at := 0.0
	for i := range a.pieces {
		p := &a.pieces[i]
		if !p.idle {
			p.width = free * float64(max(p.till.Sub(p.from), time.Millisecond)) / float64(busy)
		}
		p.at = at
		at += p.width
	}
	return a
}

// place is where a time lies; what is outside lies at an end.
func (a *axis) place(t time.Time) float64 {
	for _, p := range a.pieces {
		switch {
		case t.Before(p.from):
			return p.at
		case !t.After(p.till):
			if whole := p.till.Sub(p.from); whole > 0 {
				return p.at + p.width*float64(t.Sub(p.from))/float64(whole)
			}
			return p.at
		}
	}
	return a.width
}

// tick is a labelled place.
type tick struct {
	X     float64
	Label string
}

// ticks are about as many as fit, at round times since the start of each process.
func (a *axis) ticks(start time.Time) []tick {
	var list []tick
	last := -1000.0
	for _, p := range a.pieces {
		if p.idle {
			continue
		}
		whole := p.till.Sub(p.from)
		step := roundStep(time.Duration(float64(whole) * 90 / max(p.width, 90)))
		for d := p.from.Sub(start).Truncate(step); d <= p.till.Sub(start); d += step {
			x := a.place(start.Add(d))
			if start.Add(d).Before(p.from) || x-last < 60 || x > a.width-20 {
				continue
			}
			list, last = append(list, tick{x, "+" + shortLength(d)}), x
		}
	}
	return list
}

// roundStep is the smallest round duration that is not shorter.
func roundStep(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 10 * time.Hour, 100 * time.Hour, 1000 * time.Hour} {
		for _, n := range []time.Duration{1, 2, 5} {
			if n*unit >= d {
				return n * unit
			}
		}
	}
	return 10000 * time.Hour
}

// shortLength is a round duration without its zeros: 1h, 20m, 1m30s, 500ms.
func shortLength(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(text) > len(zero) && text[len(text)-len(zero):] == zero {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}
