package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"runbook/runner"
	"runbook/runner/journal"
)

// Metrics are a run's numbers at http://ADDR/metrics, for Prometheus, for as long as the process of the run lives.
type Metrics struct {
	Addr string // where they are served, as host:port

	server *http.Server
	served sync.WaitGroup

	runInfo, runStatus, steps, planned, waitValue, waitHolds, guardHolds, lockHeld *prometheus.GaugeVec
	retries, gatesOpen                                                             prometheus.Gauge
	records                                                                        *prometheus.CounterVec
	duration                                                                       *prometheus.HistogramVec

	started atomic.Int64        // of the run, in nanoseconds since 1970
	states  map[string]string   // of each step that is none of a group's
	values  map[string][]string // of each wait under way: the operands that are shown
	gates   map[string]bool     // that are open
}

// metricsTimeout is how long a scraper may take to ask, and to read.
const metricsTimeout = 10 * time.Second

// ServeMetrics listens at addr, on loopback where it names no host. total is what the plan has. A port that is taken is
// an error before anything has run.
func ServeMetrics(addr, version string, total runner.PlanSummary, log *slog.Logger) (*Metrics, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics at %s: %w", addr, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	m := &Metrics{Addr: l.Addr().String(), states: map[string]string{}, values: map[string][]string{}, gates: map[string]bool{}}
	m.register(registry, version)
	for effect, n := range map[string]int{"read": total.Reads, "write": total.Writes, "cutover": total.Cutovers, "destroy": total.Destroys} {
		m.planned.WithLabelValues(effect).Set(float64(n))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: metricsTimeout}))
	m.server = &http.Server{Handler: mux, ReadTimeout: metricsTimeout, WriteTimeout: 2 * metricsTimeout, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	m.served.Go(func() {
		if err := m.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("metrics are no longer served", "error", err)
		}
	})
	return m, nil
}

func (m *Metrics) register(to *prometheus.Registry, version string) {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		to.MustRegister(v)
		return v
	}
	gauge("runner_build_info", "1; which runner this is.", "version").WithLabelValues(version).Set(1)
	m.runInfo = gauge("runner_run_info", "1; which run this is.", "run", "name", "operator", "host", "sandbox")
	m.runStatus = gauge("runner_run_status", "1 for the run's status: running, or how its process ended.", "status")
	m.steps = gauge("runner_steps", "Steps by state: running, ok, changed, skipped, failed, undone, in-doubt.", "state")
	m.planned = gauge("runner_steps_planned", "Steps of the plan by effect; a loop over a list known only while running counts as one item.", "effect")
	m.waitValue = gauge("runner_wait_value", "What a wait under way saw last, for each number of its condition; durations in seconds, sizes in bytes.", "step", "value")
	m.waitHolds = gauge("runner_wait_holds", "1 where the condition of a wait under way held at the last look.", "step")
	m.guardHolds = gauge("runner_guard_holds", "1 where a stop condition held when it was last seen to change, 0 where not or where it cannot be observed.", "guard")
	m.lockHeld = gauge("runner_lock_held", "1 while the run holds its lock.", "lock")
	m.gatesOpen = gauge("runner_gates_open", "Approvals that are waited for.").WithLabelValues()
	m.retries = gauge("runner_step_retries", "Attempts that failed and were followed by another, in all processes of the run.").WithLabelValues()
	m.records = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runner_journal_records_total", Help: "Records that this process wrote, by type."}, []string{"type"})
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "runner_step_duration_seconds", Help: "How long steps took, by effect, waiting included.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 12)}, []string{"effect"})
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "runner_run_age_seconds", Help: "Time since the run first started."}, func() float64 {
		if at := m.started.Load(); at > 0 {
			return time.Since(time.Unix(0, at)).Seconds()
		}
		return 0
	})
	to.MustRegister(m.records, m.duration, age)
}

// Read takes a record's numbers.
func (m *Metrics) Read(run *runner.Report, rec journal.Record, past bool) {
	if !past {
		m.records.WithLabelValues(rec.Type).Inc()
	}
	switch rec.Type {
	case "run-started", "run-resumed":
		m.run(run, rec, past)
	case "run-finished":
		m.status(string(run.Status))
	case "step-retrying":
		m.retries.Inc()
	case "gate-opened":
		m.gates[rec.Step] = true
	case "gate-decided":
		delete(m.gates, rec.Step)
	case "guard-observed":
		var b runner.GuardObserved
		if rec.Decode(&b) == nil {
			m.guardHolds.WithLabelValues(b.Guard).Set(number(b.Holds))
		}
	case "step-observed":
		m.observed(rec)
	case "step-finished", "undo-finished":
		m.forget(rec.Step)
		if s := run.Find(rec.Step); s != nil && !s.Group && !past && rec.Type == "step-finished" {
			if d, err := time.ParseDuration(s.Duration); err == nil && s.Effect != "" {
				m.duration.WithLabelValues(s.Effect).Observe(d.Seconds())
			}
		}
	}
	m.gatesOpen.Set(float64(len(m.gates)))
	if s := run.Find(rec.Step); s != nil && !s.Group {
		m.state(s)
	}
}

func (m *Metrics) run(run *runner.Report, rec journal.Record, past bool) {
	var b runner.RunStarted
	if rec.Decode(&b) != nil {
		return
	}
	m.runInfo.Reset()
	m.runInfo.WithLabelValues(run.Run, run.Name, run.Operator, run.Host, strconv.FormatBool(run.Sandbox != "")).Set(1)
	m.status("running")
	m.started.Store(run.Started.UnixNano())
	for path := range m.states { // what an earlier process left open is open no more
		if s := run.Find(path); s != nil {
			m.state(s)
		}
	}
	clear(m.gates)
	if b.Lock != "" && !past {
		m.lockHeld.WithLabelValues(b.Lock).Set(1)
	}
}

func (m *Metrics) status(status string) {
	m.runStatus.Reset()
	m.runStatus.WithLabelValues(status).Set(1)
}

// state counts a step under the state that it has now.
func (m *Metrics) state(s *runner.ReportStep) {
	now := s.Status
	if s.Undo == "undone" {
		now = s.Undo
	}
	was, known := m.states[s.Path]
	if known && was == now {
		return
	}
	if known {
		m.steps.WithLabelValues(was).Dec()
	}
	m.steps.WithLabelValues(now).Inc()
	m.states[s.Path] = now
}

// observed shows what a wait saw. Its labels go when it is over: a run of many steps must not leave a trail of them.
func (m *Metrics) observed(rec journal.Record) {
	var b runner.StepObserved
	if rec.Decode(&b) != nil {
		return
	}
	m.waitHolds.WithLabelValues(rec.Step).Set(number(b.Holds))
	var shown []string
	for name, v := range b.Values {
		if n, ok := numeric(v); ok {
			m.waitValue.WithLabelValues(rec.Step, name).Set(n)
			shown = append(shown, name)
		}
	}
	for _, name := range m.values[rec.Step] {
		if _, ok := numeric(b.Values[name]); !ok {
			m.waitValue.DeleteLabelValues(rec.Step, name) // it is null now, which is not what it was
		}
	}
	m.values[rec.Step] = shown
}

func (m *Metrics) forget(step string) {
	m.waitHolds.DeleteLabelValues(step)
	for _, name := range m.values[step] {
		m.waitValue.DeleteLabelValues(step, name)
	}
	delete(m.values, step)
}

// numeric is a value that a condition compared, as a number.
func numeric(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case bool:
		return number(v), true
	case string: // durations are texts in JSON
		d, err := time.ParseDuration(v)
		return d.Seconds(), err == nil
	}
	return 0, false
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Close stops serving.
func (m *Metrics) Close() {
	m.lockHeld.Reset()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if m.server.Shutdown(ctx) != nil {
		_ = m.server.Close() // a scraper that does not read does not hold up the end
	}
	m.served.Wait()
}
