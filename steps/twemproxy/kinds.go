package twemproxy

import "runbook/steps"

// Kinds lists the kinds of this package.
func Kinds() []*steps.Definition {
	return []*steps.Definition{
		checkConfig().Define(),
		setServers().Define(),
		restart().Define(),
		stop().Define(),
		stats().Define(),
	}
}

// own names the step's own target, for the lines of a plan; v is nil offline.
func own(v *steps.View) string {
	if v == nil {
		return ""
	}
	t, err := v.Target("")
	if err != nil {
		return ""
	}
	return t.Name
}
