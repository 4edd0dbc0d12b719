// Package runner carries a runbook out: resolve → check → plan → execute → undo → report.
//
// Each stage is a plain function of the value before it. Load binds a file to what
// it may use and finds what is wrong with it; MakePlan says what would run; Execute
// and Resume run it, and are the only functions with effects; a Report reads the
// records of a run and nothing else, so a live run and a crashed one look alike.
//
// The engine is a walk over the tree of nodes. Whatever changes something is in the
// journal, durable, before it happens; what the journal says has finished does not
// happen again. Start at engine.go for the walk, group.go and loop.go for what holds
// steps, leaf.go for one step, settle.go for an outcome that nobody knows, replay.go for
// what a resume makes of the journal, acts.go and undo.go for the way back.
package runner
