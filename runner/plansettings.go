package runner

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"runbook/steps"
)

// settings are the times and counts of a step, those written and those in force.
func (pl *planner) settings(s *planScope, n *Node, f *nodeFacts) []PlanSetting {
	if f.fixedSet {
		return f.settings
	}
	var list []PlanSetting
	fixed := true
	add := func(key, value string, isFixed bool) {
		fixed = fixed && isFixed
		list = append(list, PlanSetting{key, value})
	}
	if w := n.Wait; w != nil {
		every, known := settingText(pl, s, w.Every)
		if every == "" || every == "0s" {
			every = "1s"
		}
		add("every", every, known)
		for _, o := range []struct {
			key string
			set Setting[time.Duration]
		}{{"stable", w.Stable}, {"stall", w.Stall}} {
			if text, known := settingText(pl, s, o.set); o.set.Set {
				add(o.key, text, known)
			}
		}
		if w.All {
			add("wait-all", "true", true)
		}
	}
	if r := n.Repeat; r != nil {
		text, known := settingText(pl, s, r.Max)
		add("max", text, known)
		if text, known := settingText(pl, s, r.Every); r.Every.Set {
			add("every", text, known)
		}
	}
	if r := n.Retry; r.Written {
		text, known := settingText(pl, s, r.Attempts)
		words := text + " attempts"
		if delay, k := settingText(pl, s, r.Delay); r.Delay.Set {
			words += ", delay " + delay
			known = known && k
		}
		if r.Factor != 0 && r.Factor != 1 {
			words += ", factor " + strconv.FormatFloat(r.Factor, 'g', -1, 64)
		}
		if most, k := settingText(pl, s, r.MaxDelay); r.MaxDelay.Set {
			words += ", at most " + most
			known = known && k
		}
		if r.Jitter != 0.2 {
			words += ", jitter " + strconv.FormatFloat(r.Jitter, 'g', -1, 64)
		}
		add("retry", words, known)
	}
	switch text, known := settingText(pl, s, n.Timeout); {
	case n.Timeout.Set:
		add("timeout", text, known)
	case n.Shape == Leaf && !n.Background && n.Kind != nil && n.Kind.Engine != steps.EngineGate:
		add("timeout", "10m", true)
	}
	if text, known := settingText(pl, s, n.AttemptTimeout); n.AttemptTimeout.Set {
		add("attempt-timeout", text, known)
	}
	for _, flag := range []struct {
		key string
		on  bool
	}{{"recheck", n.Recheck}, {"background", n.Background}} {
		if flag.on {
			add(flag.key, "true", true)
		}
	}
	if n.Restore {
		add("restore", "when the run is over", true)
	}
	if fixed {
		f.settings, f.fixedSet = list, true
	}
	return list
}

// settingText is a setting as people read it; known is false where another item may have another.
func settingText[T any](pl *planner, s *planScope, set Setting[T]) (text string, known bool) {
	if set.Expr == nil {
		if d, ok := any(set.Value).(time.Duration); ok {
			return shortDuration(d), true
		}
		return fmt.Sprint(set.Value), true
	}
	if why := s.why(set.Expr.Refs); why != "" {
		return "(" + why + ")", false
	}
	v, err := set.Expr.Eval(s.env)
	if err != nil {
		return "(" + err.Error() + ")", false
	}
	if d, ok := v.(time.Duration); ok {
		return shortDuration(d), false
	}
	return ShowValue(v), false
}

// shortDuration writes a duration without the zeros that Go puts behind it: 10m, not 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
