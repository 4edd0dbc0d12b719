package twemproxy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type setServersIn struct {
	Pool    string        `yaml:"pool" doc:"Name of the pool; the file's only one where none is given."`
	Servers []schema.Addr `yaml:"servers" doc:"Address that is to own each slot, in order: slot 0 first. Either this, or slots and to."`
	Slots   schema.Slots  `yaml:"slots" doc:"Slots that are to be owned by to; all others stay."`
	To      schema.Addr   `yaml:"to" doc:"Address that is to own slots."`
}

type setServersOut struct {
	Before  []string `yaml:"before" doc:"Address that owned each slot before, in the order of slots."`
	Servers []string `yaml:"servers" doc:"Address that owns each slot now, in the order of slots."`
}

// serversBefore is the list as it was written when the step started.
type serversBefore struct {
	Entries []string `json:"entries"`
}

func setServers() *steps.Kind[setServersIn, setServersOut] {
	return &steps.Kind[setServersIn, setServersOut]{
		Name: "twemproxy.set-servers",
		Doc: "Rewrites the list of servers of a pool in the configuration file, so that each slot has the owner wanted. Comments, blanks, names and everything else stay as they are; " +
			"the file is replaced at once, so that a crash leaves the old or the new one. The running proxy knows nothing of it until twemproxy.restart.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: route, uses: twemproxy.set-servers, target: proxy, with: {pool: alpha, slots: "1", to: "10.0.0.3:9221"}}`,
		Pitfalls: []string{
			"The names of the servers decide which slot is whose, so they stay with their slots; where one has no name, or the number of slots changes, all are named anew: server1, server2, …",
			"Two lines with one address need names of their own: without, nutcracker takes address and weight for the name and refuses the file.",
			"A list that somebody else has changed since the step started is not overwritten; the undo puts the old list back only while it is the one this step wrote.",
			"nutcracker never reads its file again: clients go where they went until it is restarted.",
		},
		Valid: func(in setServersIn, unknown func(string) bool) []steps.Problem {
			some := len(in.Slots) > 0 || in.To != "" || unknown("slots") || unknown("to")
			all := len(in.Servers) > 0 || unknown("servers")
			var p []steps.Problem
			switch {
			case all && some:
				p = append(p, steps.Problem{Input: "servers", Message: "either servers, or slots and to"})
			case !all && !some:
				p = append(p, steps.Problem{Input: "servers", Message: "servers is wanted, or slots and to"})
			case some && in.To == "" && !unknown("to"):
				p = append(p, steps.Problem{Input: "to", Message: "who is to own these slots?"})
			case some && len(in.Slots) == 0 && !unknown("slots"):
				p = append(p, steps.Problem{Input: "slots", Message: "which slots is it to own?"})
			}
			return p
		},
		Check: func(ctx context.Context, v steps.View, in setServersIn) error {
			_, now, err := in.look(ctx, v)
			if err != nil {
				return err
			}
			_, err = in.wanted(now.owners())
			return err
		},
		Plan:  planSetServers,
		Probe: probeSetServers,
		Apply: applySetServers,
		Undo:  undoSetServers,
		UndoPlan: func(in setServersIn) string {
			return "write the list of servers before, if it is still ours"
		},
	}
}

func (in setServersIn) look(ctx context.Context, v steps.View) (file, pool, error) {
	p, err := look(ctx, v)
	if err != nil {
		return file{}, pool{}, err
	}
	return p.read(ctx, in.Pool)
}

// read gives the file and one pool of it.
func (p proxy) read(ctx context.Context, name string) (file, pool, error) {
	f, err := p.file(ctx)
	if err != nil {
		return f, pool{}, err
	}
	found, err := f.pool(name)
	return f, found, err
}

// wanted gives the owners that the step wants, from those there are.
func (in setServersIn) wanted(owners []string) ([]string, error) {
	if len(in.Slots) == 0 {
		return addrs(in.Servers), nil
	}
	owners = slices.Clone(owners)
	for _, slot := range in.Slots {
		if slot >= len(owners) {
			return nil, steps.Precondition("slot %d: the pool has servers for slots 0 to %d", slot, len(owners)-1)
		}
		owners[slot] = string(in.To)
	}
	return owners, nil
}

func addrs(list []schema.Addr) []string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = string(a)
	}
	return texts
}

func planSetServers(ctx context.Context, v *steps.View, in setServersIn) (steps.Change, error) {
	if v == nil {
		command := fmt.Sprintf("servers of pool %s: %d slots", in.Pool, len(in.Servers))
		if len(in.Slots) > 0 {
			command = fmt.Sprintf("servers of pool %s: slots %s", in.Pool, in.Slots)
		}
		return steps.Change{Lines: []steps.Line{{Command: command, To: string(in.To)}}}, nil
	}
	f, now, err := in.look(ctx, *v)
	if err != nil {
		return steps.Change{}, err
	}
	owners := now.owners()
	want, err := in.wanted(owners)
	if err != nil {
		return steps.Change{}, err
	}
	change := steps.Change{Before: serversBefore{Entries: now.entries()}}
	for _, move := range moves(owners, want) {
		move.Target, move.Command = own(v), fmt.Sprintf("%s: pool %s: %s", f.name, now.name, move.Command)
		change.Lines = append(change.Lines, move)
	}
	if len(change.Lines) == 0 {
		change.Lines = []steps.Line{{Target: own(v), Command: fmt.Sprintf("%s: pool %s: nothing, every slot has its owner", f.name, now.name)}}
	}
	return change, nil
}

// moves tells what changes its owner, in lines that put together the slots that change alike.
func moves(from, to []string) []steps.Line {
	at := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return "none"
	}
	type pair struct{ from, to string }
	slots := map[pair]schema.Slots{}
	var order []pair
	for i := range max(len(from), len(to)) {
		p := pair{at(from, i), at(to, i)}
		if p.from == p.to {
			continue
		}
		if slots[p] == nil {
			order = append(order, p)
		}
		slots[p] = append(slots[p], i)
	}
	lines := make([]steps.Line, len(order))
	for i, p := range order {
		lines[i] = steps.Line{Command: fmt.Sprintf("slots %s", slots[p]), From: p.from, To: p.to}
	}
	return lines
}

func probeSetServers(ctx context.Context, v steps.View, in setServersIn) (steps.State, setServersOut, error) {
	_, now, err := in.look(ctx, v)
	if err != nil {
		return steps.Unclear, setServersOut{}, err
	}
	want, err := in.wanted(now.owners())
	if err != nil {
		return steps.Unclear, setServersOut{}, err
	}
	if !slices.Equal(now.owners(), want) { // the file is replaced at once: what differs was not touched
		return steps.Untouched, setServersOut{}, nil
	}
	out, err := setServersOutput(v, now)
	return steps.Done, out, err
}

// setServersOutput finds the owners before in what the plan captured: by now the file has the new ones.
func setServersOutput(v steps.View, now pool) (setServersOut, error) {
	old, _, err := before(v, now)
	return setServersOut{Before: old.owners(), Servers: now.owners()}, err
}

// before gives the pool as it was when the step started; known is false where nothing was captured, and it is as it is now.
func before(v steps.View, now pool) (old pool, known bool, err error) {
	var b serversBefore
	if known, err = v.Before(&b); err != nil || !known {
		return now, false, err
	}
	old = pool{name: now.name}
	for _, e := range b.Entries {
		s, err := readServer(e)
		if err != nil {
			return now, false, fmt.Errorf("read the state journaled before the step: %w", err)
		}
		old.servers = append(old.servers, s)
	}
	return old, true, nil
}

func applySetServers(ctx context.Context, s steps.Session, in setServersIn) (setServersOut, error) {
	p, err := act(ctx, s)
	if err != nil {
		return setServersOut{}, err
	}
	f, now, err := p.read(ctx, in.Pool)
	if err != nil {
		return setServersOut{}, err
	}
	want, err := in.wanted(now.owners())
	if err != nil {
		return setServersOut{}, err
	}
	if slices.Equal(now.owners(), want) {
		return setServersOutput(s.View, now)
	}
	old, _, err := before(s.View, now)
	if err != nil {
		return setServersOut{}, err
	}
	if !slices.Equal(old.entries(), now.entries()) {
		return setServersOut{}, steps.Errorf("conflict", "servers of pool %s in %s on %s: somebody has changed them since the step started", now.name, f.name, p.m).
			WithHint("look who did; the step starts from what is there then")
	}
	if now, err = p.write(ctx, f, now, now.entriesFor(want)); err != nil {
		return setServersOut{}, err
	}
	return setServersOutput(s.View, now)
}

// write replaces the file by one with another list, and gives the pool as it stands there then.
func (p proxy) write(ctx context.Context, f file, old pool, entries []string) (pool, error) {
	text, err := f.with(old.name, entries)
	if err != nil {
		return old, err
	}
	if err := p.m.WriteFile(ctx, f.name, text, 0); err != nil {
		return old, err
	}
	now, err := parse(f.name, text)
	if err != nil {
		return old, err
	}
	return now.pool(old.name)
}

func undoSetServers(ctx context.Context, s steps.Session, in setServersIn, _ *setServersOut) error {
	p, err := act(ctx, s)
	if err != nil {
		return err
	}
	f, now, err := p.read(ctx, in.Pool)
	if err != nil {
		return err
	}
	old, known, err := before(s.View, now)
	if err != nil {
		return err
	}
	if !known {
		return steps.Errorf("precondition", "put the servers of pool %s in %s on %s back: what they were is not known", now.name, f.name, p.m)
	}
	if slices.Equal(now.entries(), old.entries()) {
		return nil
	}
	ours, err := in.wanted(old.owners())
	if err != nil {
		return err
	}
	if !slices.Equal(now.entries(), old.entriesFor(ours)) {
		return steps.Errorf("conflict", "put the servers of pool %s in %s on %s back: they are not the ones this step wrote: %s", now.name, f.name, p.m, strings.Join(now.entries(), ", ")).
			WithHint("somebody else has changed them; write them by hand if the old ones are wanted")
	}
	_, err = p.write(ctx, f, now, old.entries())
	return err
}
