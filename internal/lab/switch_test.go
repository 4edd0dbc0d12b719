package lab

import (
	"fmt"
	"testing"
)

// pair is a world whose slot goes back and forth between two groups that follow one another.
type pair struct {
	*world
	other *pika
	book  string
	args  []string
}

// backAndForth switches the slots to group to, waits until the old side follows, so that they can go back.
const backAndForth = `version: 1
name: back-and-forth
inputs:
  slots: {type: slots}
  to_group: {type: int}
  source: {type: target, kind: pika}
  destination: {type: target, kind: pika}
  max_pause: {type: duration, default: 2s}
targets:
  one: {kind: pika, addr: "127.0.0.1:1"}
  two: {kind: pika, addr: "127.0.0.1:1"}
  codis: {kind: codis, addr: "127.0.0.1:1", product: demo}
steps:
  - id: ready
    uses: pika.await-slots
    target: ${{ inputs.destination }}
    with: {slots: "${{ inputs.slots }}", master: "${{ inputs.source }}"}
    timeout: 5m
  - id: switch
    uses: codis.switch-slot
    target: codis
    with: {slots: "${{ inputs.slots }}", to_group: "${{ inputs.to_group }}", source: "${{ inputs.source }}", destination: "${{ inputs.destination }}", max_pause: "${{ inputs.max_pause }}"}
`

// newPair is a world with n slots that move, and a second group that follows the first in them.
func newPair(t *testing.T, n int, relayed bool) *pair {
	t.Helper()
	p := &pair{world: newWorld(t, n, relayed)}
	p.other = p.pika("other")
	p.other.make(p.moving)
	p.other.follow(p.source, p.moving)
	p.codis.group(2, p.other)
	p.begin()
	p.book = p.write("back-and-forth.yaml", backAndForth)
	p.args = []string{"--inventory", p.inventory("inventory.yaml", pikaTarget("one", p.source)+pikaTarget("two", p.other), fmt.Sprintf("  slots: %q\n", p.moving))}
	return p
}

// there starts a switch to the other group, back one to the first.
func (p *pair) there() *session { return p.toward(2, "one", "two") }
func (p *pair) back() *session  { return p.toward(1, "two", "one") }

func (p *pair) toward(group int, source, destination string) *session {
	p.t.Helper()
	args := append([]string{"exec", p.book}, p.args...)
	return p.runner(append(args, "-i", fmt.Sprintf("to_group=%d", group), "-i", "source="+source, "-i", "destination="+destination)...)
}

// TestSwitch moves one slot back and forth under load, LAB_SWITCHES times.
func TestSwitch(t *testing.T) {
	need(t)
	p := newPair(t, 1, false)
	var all []pause
	for i := range number(t, "LAB_SWITCHES", 20) {
		go1 := p.there
		want := p.other.addr
		if i%2 == 1 {
			go1, want = p.back, p.source.addr
		}
		go1().want(0)
		all = append(all, p.switches()...)
		if at, ok := p.codis.served(p.moving, want); !ok {
			t.Fatalf("after switch %d clients are served from %q, want %s", i+1, at, want)
		}
		p.more(writes / 4)
	}
	r := p.verdict("one slot, back and forth", "", all)
	if r.Unknown > 0 || len(r.Errors) > 0 {
		t.Errorf("clients saw errors though nothing failed: %v", r.Errors)
	}
}
