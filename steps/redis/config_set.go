package redis

import (
	"context"
	"strings"

	"runbook/steps"
)

type configSetIn struct {
	Name    string `yaml:"name,required" doc:"Name of the setting, as in redis.conf."`
	Value   any    `yaml:"value,required" doc:"Value wanted: a text, a number, or true and false for yes and no. Sizes may have units (64mb)."`
	Rewrite bool   `yaml:"rewrite" doc:"Write the setting into the server's configuration file too (CONFIG REWRITE), so that it outlives a restart." default:"false"`
}

type configSetOut struct {
	Before string `yaml:"before" doc:"Value before the step, as the server prints it; *** for a secret."`
	After  string `yaml:"after" doc:"Value now, as the server prints it; *** for a secret."`
}

// settingBefore is what undoing a setting needs. A secret value is not kept: it would stand in the journal.
type settingBefore struct {
	Value  string `json:"value"`
	Secret bool   `json:"secret,omitempty"`
}

func configSet() *steps.Kind[configSetIn, configSetOut] {
	return &steps.Kind[configSetIn, configSetOut]{
		Name:       "redis.config-set",
		Doc:        "Changes one setting of a running server. Sends CONFIG GET and CONFIG SET, and CONFIG REWRITE where asked.",
		Effect:     steps.Write,
		On:         speaks(),
		Idempotent: true,
		Example:    `{id: raise_backlog, uses: redis.config-set, target: redis1, with: {name: repl-backlog-size, value: 512mb}}`,
		Pitfalls: []string{
			"The undo puts the old value back only while the value is still the one this step set: what somebody else has changed since is not overwritten.",
			"The old value of a secret (requirepass, masterauth) is never kept, so there is no way back for it but a step of its own.",
			"After requirepass was changed, connections that exist stay logged in and new ones need the new password: change the target's password with it.",
			"Without rewrite the setting is gone after a restart; rewrite fails on a server that was started without a configuration file, after the setting was changed. Nobody can see from outside whether the file has it, so with rewrite the probe cannot say that all is done.",
		},
		Valid: func(in configSetIn, unknown func(string) bool) []steps.Problem {
			var p []steps.Problem
			if strings.ContainsAny(in.Name, "*?[] \t\n") {
				p = append(p, steps.Problem{Input: "name", Message: "one setting, without wildcards or spaces"})
			}
			if _, ok := scalarText(in.Value); !ok && !unknown("value") {
				p = append(p, steps.Problem{Input: "value", Message: "a text, a number, true or false"})
			}
			return p
		},
		Check: checkConfigSet,
		Plan:  planConfigSet,
		Probe: probeConfigSet,
		Apply: applyConfigSet,
		Undo:  undoConfigSet,
		UndoPlan: func(in configSetIn) string {
			return "CONFIG SET " + in.Name + " to the value before, if it is still ours"
		},
	}
}

func (in configSetIn) value() string { s, _ := scalarText(in.Value); return s }

func checkConfigSet(ctx context.Context, v steps.View, in configSetIn) error {
	c, err := view(ctx, v, "")
	if err != nil {
		return err
	}
	_, known, err := c.setting(ctx, in.Name)
	if err != nil {
		return err
	}
	if !known {
		return steps.Precondition("config set %s on %s: the server knows no such setting", in.Name, c.Addr())
	}
	if in.Rewrite {
		i, err := c.Info(ctx, "server")
		if err != nil {
			return err
		}
		if _, shown := i.Fields["config_file"]; shown && i.Config == "" {
			return steps.Precondition("config rewrite on %s: the server was started without a configuration file", c.Addr()).
				WithHint("leave out rewrite, or start the server with a file")
		}
	}
	return nil
}

func planConfigSet(ctx context.Context, v *steps.View, in configSetIn) (steps.Change, error) {
	line := steps.Line{Target: own(v), Command: Line([]string{"CONFIG", "SET", in.Name, in.value()})}
	var change steps.Change
	if v != nil {
		c, err := view(ctx, *v, "")
		if err != nil {
			return steps.Change{}, err
		}
		now, known, err := c.setting(ctx, in.Name)
		if err != nil {
			return steps.Change{}, err
		}
		if known {
			b := settingBefore{Value: now}
			if IsSecretSetting(in.Name) {
				b = settingBefore{Secret: true}
			}
			change.Before = b
			line.From, line.To = shown(in.Name, now), shown(in.Name, in.value())
			if line.From == "" {
				line.From = `""`
			}
		}
	}
	change.Lines = []steps.Line{line}
	if in.Rewrite {
		change.Lines = append(change.Lines, steps.Line{Target: own(v), Command: "CONFIG REWRITE"})
	}
	return change, nil
}

func probeConfigSet(ctx context.Context, v steps.View, in configSetIn) (steps.State, configSetOut, error) {
	c, err := view(ctx, v, "")
	if err != nil {
		return steps.Unclear, configSetOut{}, err
	}
	now, known, err := c.setting(ctx, in.Name)
	if err != nil {
		return steps.Unclear, configSetOut{}, err
	}
	if !known || !same(in.Name, now, in.value()) {
		return steps.Untouched, configSetOut{}, nil
	}
	out, err := configSetOutput(v, in, now)
	if err != nil || in.Rewrite {
		return steps.Unclear, out, err
	}
	return steps.Done, out, nil
}

func applyConfigSet(ctx context.Context, s steps.Session, in configSetIn) (configSetOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return configSetOut{}, err
	}
	if err := c.set(ctx, in.Name, in.value(), in.Rewrite); err != nil {
		return configSetOut{}, err
	}
	now, _, err := c.setting(ctx, in.Name)
	if err != nil {
		return configSetOut{}, err
	}
	return configSetOutput(s.View, in, now)
}

// configSetOutput finds the value before in what the plan captured: by now the server has the new one.
func configSetOutput(v steps.View, in configSetIn, now string) (configSetOut, error) {
	before := settingBefore{Value: now, Secret: IsSecretSetting(in.Name)}
	if _, err := v.Before(&before); err != nil {
		return configSetOut{}, err
	}
	out := configSetOut{Before: before.Value, After: shown(in.Name, now)}
	if before.Secret {
		out.Before = masked
	}
	return out, nil
}

func (c *Client) set(ctx context.Context, name, value string, rewrite bool) error {
	if _, err := c.Do(ctx, "CONFIG", "SET", name, value); err != nil {
		if IsSecretSetting(name) {
			return hideIn(err, value)
		}
		return err
	}
	if !rewrite {
		return nil
	}
	_, err := c.Do(ctx, "CONFIG", "REWRITE")
	return err
}

func undoConfigSet(ctx context.Context, s steps.Session, in configSetIn, _ *configSetOut) error {
	var before settingBefore
	has, err := s.Before(&before)
	if err != nil {
		return err
	}
	c, err := session(ctx, s)
	if err != nil {
		return err
	}
	now, _, err := c.setting(ctx, in.Name)
	if err != nil {
		return err
	}
	ours := same(in.Name, now, in.value())
	switch {
	case has && !before.Secret && same(in.Name, now, before.Value) && !in.Rewrite:
		return nil
	case !ours && (!has || before.Secret || !same(in.Name, now, before.Value)):
		return steps.Errorf("conflict", "put %s back on %s: it is %q now, which this step did not set", in.Name, c.Addr(), shown(in.Name, now)).
			WithHint("somebody else has changed it; set it by hand if the old value is wanted")
	case !has:
		return steps.Errorf("precondition", "put %s back on %s: the value before is not known", in.Name, c.Addr())
	case before.Secret:
		return steps.Errorf("precondition", "put %s back on %s: the value before is secret and was not kept", in.Name, c.Addr()).
			WithHint("write an undo step that sets it")
	}
	return c.set(ctx, in.Name, before.Value, in.Rewrite)
}

// hideIn masks a value that a server repeats in its error.
func hideIn(err error, secret string) error {
	e := steps.Classify(err)
	if !strings.Contains(e.Error(), secret) || secret == "" {
		return err
	}
	c := *e
	c.Err = &ServerError{Text: hide(e.Error(), secret)}
	return &c
}
