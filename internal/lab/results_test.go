package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"runbook/internal/simulate/traffic"
)

// pause is one switch, as the runner measured it.
type pause struct {
	whole  time.Duration
	phases []phase
}

type phase struct {
	name string
	took time.Duration
}

// row is one line of the table.
type row struct {
	lane     string
	switches []pause
	report   traffic.Report
	note     string
}

// results are collected over all tests and printed at the end.
type results struct {
	mu   sync.Mutex
	rows []row
}

func (r *results) add(w row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, w)
}

// String is the table, in Markdown. Pauses are medians and the longest; the wait is the longest of any client for one
// write to a slot that moved.
func (r *results) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n| lane | acknowledged | lost | stale | unknown | switches | pause, median | pause, longest | longest wait of a client | |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, w := range r.rows {
		var pauses []time.Duration
		for _, p := range w.switches {
			pauses = append(pauses, p.whole)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %s | %s | %s | %s |\n", w.lane, w.report.Acknowledged, len(w.report.Lost), len(w.report.Stale),
			w.report.Unknown, len(pauses), ms(quantile(pauses, 0.5)), ms(quantile(pauses, 1)), ms(w.report.MaxWaitTagged), w.note)
	}
	b.WriteString("\n| lane | part of the pause | median | longest |\n|---|---|---|---|\n")
	for _, w := range r.rows {
		var names []string
		parts := map[string][]time.Duration{}
		for _, p := range w.switches {
			for _, ph := range p.phases {
				if !slices.Contains(names, ph.name) {
					names = append(names, ph.name)
				}
				parts[ph.name] = append(parts[ph.name], ph.took)
			}
		}
		for _, name := range names {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", w.lane, name, ms(quantile(parts[name], 0.5)), ms(quantile(parts[name], 1)))
		}
	}
	if path := os.Getenv("LAB_REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

func ms(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
