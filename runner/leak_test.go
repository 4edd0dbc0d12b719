package runner

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"runbook/steps"
)

type echoIn struct {
	Say  string `yaml:"say,required" doc:"Words."`
	Fail bool   `yaml:"fail" doc:"Fail with them."`
}
type echoOut struct {
	Said string         `yaml:"said"`
	Map  map[string]any `yaml:"map"`
}

// TestNoSecretIsWritten runs kinds that repeat a secret wherever they can, and looks for it.
func TestNoSecretIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secret = "s3cr3t \"quoted\" value"
		var log, screen bytes.Buffer
		l := newLab(t)
		l.environ = map[string]string{"PW": secret}
		l.w.extra = append(l.w.extra, (&steps.Kind[echoIn, echoOut]{Name: "mem.echo", Doc: "Echoes.", Effect: steps.Write,
			Plan: func(_ context.Context, _ *steps.View, in echoIn) (steps.Change, error) {
				return steps.Change{Lines: []steps.Line{{Command: "say " + in.Say, From: in.Say, To: in.Say}}, Before: map[string]string{in.Say: in.Say}}, nil
			},
			Probe: func(_ context.Context, _ steps.View, in echoIn) (steps.State, echoOut, error) {
				return steps.Untouched, echoOut{}, nil
			},
			Apply: func(_ context.Context, s steps.Session, in echoIn) (echoOut, error) {
				s.Progress(steps.Progress{Text: in.Say})
				if in.Fail {
					return echoOut{}, steps.Temporarily("reply", steps.Errorf("reply", "ERR %s", in.Say).WithHint("not %s", in.Say))
				}
				return echoOut{in.Say, map[string]any{in.Say: []any{in.Say}}}, nil
			},
			Undo: func(_ context.Context, _ steps.Session, in echoIn, _ *echoOut) error {
				return steps.Errorf("reply", "undo %s", in.Say)
			},
			UndoPlan: func(in echoIn) string { return "unsay " + in.Say },
		}).Define(), (&steps.Kind[echoIn, echoOut]{Name: "mem.hear", Doc: "Hears.", Effect: steps.Read,
			Read: func(_ context.Context, _ steps.View, in echoIn) (echoOut, error) {
				if in.Fail {
					return echoOut{}, steps.Temporarily("reply", steps.Errorf("reply", "ERR %s", in.Say))
				}
				return echoOut{Said: in.Say}, nil
			}}).Define())
		l.ask = func(_ context.Context, q Question) (Answer, error) {
			for _, line := range append(q.Show, q.Sends...) {
				screen.WriteString(line.String())
			}
			screen.WriteString(q.Message)
			return Answer{Approved: true, Reason: secret}, nil
		}
		cfg := l.config()
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		cfg.Progress = func(t Tick) { screen.WriteString(t.Progress.Text) }
		p := l.program(bookHead+`
secrets: {pw: {env: PW}}
steps:
  - {id: a, uses: mem.echo, confirm: {message: "Say?", show: [1 + 1]}, with: {say: "${{ secrets.pw }}"}}
  - {id: l, for-each: "[steps.a.said]", uses: mem.hear, with: {say: "${{ item }}"}}
  - {id: w, uses: mem.hear, with: {say: "${{ secrets.pw }}"}, wait-until: said == "x", timeout: 5s, on-failure: continue}
  - {id: f, uses: mem.hear, with: {say: "${{ secrets.pw }}", fail: true}, wait-until: said == "x", timeout: 5s, on-failure: continue}
  - {id: r, uses: mem.echo, with: {say: "${{ secrets.pw }}", fail: true}, retry: {attempts: 2, delay: 1s}, rescue: [{id: rr, uses: mem.hear, with: {say: "${{ error.message }}"}}]}
  - {id: cut, uses: ./sub.yaml, with: {pw: "${{ secrets.pw }}"}}
  - {id: bad, uses: mem.echo, on-failure: rollback-run, with: {say: "${{ secrets.pw }}", fail: true}}
outputs: {said: steps.a.said}
`, "sub.yaml", `
version: 1
name: sub
inputs: {pw: {type: secret}}
steps: [{id: s, uses: mem.echo, with: {say: "${{ inputs.pw }}"}}]
outputs: {said: steps.s.said}
`)
		inputs, _, err := p.BindInputs(GivenInputs{})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Execute(t.Context(), cfg, Request{Program: p, Inputs: inputs})
		if err != nil {
			t.Fatal(err)
		}
		l.end(r, Failed)
		screen.WriteString(r.Err.Error() + r.Hint)
		for _, form := range []string{"s3cr3t", `\"quoted\"`} {
			for what, text := range map[string][]byte{"the log": log.Bytes(), "the screen": screen.Bytes()} {
				if bytes.Contains(text, []byte(form)) {
					t.Errorf("%s holds the secret: %s", what, text)
				}
			}
			err := filepath.WalkDir(l.store.Dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				raw, err := os.ReadFile(path)
				for i, line := range bytes.Split(raw, []byte("\n")) {
					if bytes.Contains(line, []byte("s3cr3t")) {
						t.Errorf("%s:%d holds the secret: %s", filepath.Base(path), i+1, line)
					}
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}
