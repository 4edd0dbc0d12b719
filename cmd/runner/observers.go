package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"runbook/runner"
	"runbook/runner/observe"
)

// observers are the flags that name who else is told of a run.
type observers struct{ hook, metrics string }

func (o *observers) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.hook, "on-event", "", "shell command that gets each event as JSON on standard input: approval wanted, pause, guard tripped, failure, end")
	f.StringVar(&o.metrics, "metrics", "", "serve Prometheus metrics at this address while the run goes on; :9100 is on loopback")
}

// observe begins to tell them, and the collector of traces that the environment names. A dry run is told to nobody.
func (a *app) observe(o *observers, cfg *runner.Config, p *runner.Program, in *runner.Inputs, sel runner.Selection, dry bool) (*observe.Feed, error) {
	var readers []observe.Reader
	if dry {
		return observe.Start(cfg), nil
	}
	if o.metrics != "" {
		plan, _, err := runner.MakePlan(p, in, sel)
		if err != nil {
			return nil, err
		}
		m, err := observe.ServeMetrics(o.metrics, version().Version, plan.Summary, cfg.Log)
		if err != nil {
			return nil, &runner.UsageError{Err: err, Hint: "--metrics 127.0.0.1:0 takes a port that is free"}
		}
		fmt.Fprintf(a.err, "metrics at http://%s/metrics\n", m.Addr)
		readers = append(readers, m)
	}
	t, err := observe.StartTrace(os.Getenv, version().Version, cfg.Log)
	if err != nil {
		cfg.Log.Warn("the run is not traced", "error", err) // the environment may be another program's
	} else if t != nil {
		readers = append(readers, t)
	}
	if strings.TrimSpace(o.hook) != "" {
		state, err := filepath.Abs(a.state)
		if err != nil {
			state = a.state
		}
		act := func(words ...string) string {
			line := "runner"
			for _, w := range append(words, "--state", state) {
				line += " " + shellWord(w)
			}
			return line
		}
		readers = append(readers, observe.NewHook(o.hook, act, withoutSecrets(os.Environ(), p), cfg.Log))
	}
	return observe.Start(cfg, readers...), nil
}

// withoutSecrets is the environment without the variables that the runbook reads secrets from.
func withoutSecrets(environ []string, p *runner.Program) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(p.Root.Secrets, func(s *runner.Secret) bool { return s.Decl.Env.Set && s.Decl.Env.Value == name })
	})
}
