package runner

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// looks is what runs now, and what was seen of it last: also what is seen too often, or
// matters too little, for the journal.
type looks struct {
	mu   sync.Mutex
	last map[string]*LiveStep
}

// enter notes that a step runs, until the function that it gives is called.
func (l *looks) enter(path string, now time.Time) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = map[string]*LiveStep{}
	}
	if l.last[path] != nil {
		return func() {}
	}
	l.last[path] = &LiveStep{Step: path, Since: now}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.last, path)
	}
}

// see keeps the last look of a wait.
func (l *looks) see(path string, now time.Time, seen *StepObserved) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.last[path]; s != nil {
		s.Observed, s.At = seen, &now
	}
}

// progress keeps how far an act has come.
func (l *looks) progress(t Tick, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.last[t.Step]; s != nil {
		s.Progress, s.At = t.Words(), &now
	}
}

// now gives what runs, the oldest first.
func (l *looks) now() []LiveStep {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []LiveStep{}
	for _, s := range l.last {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b LiveStep) int { return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Step, b.Step)) })
	return list
}

// Words are how far it has come, in one line.
func (t Tick) Words() string {
	p := t.Progress
	words := p.Text
	switch {
	case p.Total > 0:
		words = strings.TrimSpace(fmt.Sprintf("%s %.0f of %.0f %s (%.0f %%)", words, p.Done, p.Total, p.Unit, 100*p.Done/p.Total))
	case p.Done > 0:
		words = strings.TrimSpace(fmt.Sprintf("%s %.0f %s", words, p.Done, p.Unit))
	}
	if t.Left > 0 {
		words += ", about " + t.Left.Round(time.Second).String() + " left"
	}
	return words
}
