package codis

import (
	"context"
	"slices"
	"time"

	"runbook/schema"
	"runbook/steps"
	"runbook/steps/pika"
)

// The hold switch moves slots from one Pika group to another while clients wait at the
// proxies, without losing a write that was acknowledged. It is spread over:
//
//	switch_slot.go     the kind: what a runbook sees
//	hold.go            what a switch is about, and who is spoken to
//	hold_preflight.go  what must be so before the first client waits
//	hold_move.go       the way forward, from the first hold to the last route
//	hold_look.go       what can be seen of a switch from outside
//	hold_state.go      the table: what that means, and the one safe way on
//	hold_settle.go     carrying the table's way out, for the runner, a resume and the guardian alike
//
// Three facts of Pika 3.4 and Codis 3.2 shape it. A lag of 0 says that the destination has
// the binlog, not that it has applied it (hence the markers). A proxy's hold can be opened by
// ordinary actions of the dashboard (hence the fence: the source's slots follow the
// destination before it is promoted, so a stray write gets an error). And a request to hold
// that got no answer may be carried out later than the one to release (hence a release is
// repeated and read back).

// switchPlan is what a switch is about: all that bringing it to an end needs when nothing
// but the servers themselves can be asked. It is journaled before the first request.
type switchPlan struct {
	Slots       schema.Slots  `json:"slots"`
	From        int           `json:"from"` // groups
	To          int           `json:"to"`
	Source      serverOf      `json:"source"`
	Destination serverOf      `json:"destination"`
	MaxPause    time.Duration `json:"max_pause"`
	Product     string        `json:"product"`
	Proxies     []ProxyModel  `json:"proxies"` // as registered when it began
	Coordinator struct {
		Target string `json:"target,omitempty"` // the runbook's, where it names one
		Name   string `json:"name"`             // as the dashboard says: zookeeper, filesystem, …
		Addr   string `json:"addr"`
	} `json:"coordinator"`
}

// serverOf is a group's master: the runbook's target, and the address that Codis knows it by.
type serverOf struct {
	Target string `json:"target"`
	Addr   string `json:"addr"`
}

// hold is one switch with those who take part in it. It is of one goroutine, but for what it starts and waits for itself.
type hold struct {
	plan    switchPlan
	v       steps.View
	codis   *Client
	source  *pika.Client
	dest    *pika.Client
	proxies []*Proxy

	began    time.Time               // of the first hold: clients wait since then; zero: not known, or none does
	announce func(word string) error // tells the guardian; nil: there is none
	held     map[string][]Slot       // by token: what each proxy was told to hold, as it was before
	late     map[string]bool         // proxies whose hold got no answer: it may still come
	moving   bool                    // forward, within max_pause
	fenced   bool                    // the fence was asked for
	detached bool                    // the detaching was asked for
	assigned assignment
	threads  int      // of the destination, that apply what it gets
	markers  []string // written, and not taken away yet
}

// assignment is how far the change of the mapping has come, as far as this process knows.
type assignment int

const (
	neverAssigned assignment = iota // nobody has asked for it
	maybeAssigned                   // asked for, without an answer; or by a process that is gone
)

// The words that a guardian is told, each before the request that makes it true.
const (
	toldHold   = "hold"
	toldFence  = "fence"
	toldAssign = "assign"
)

// joinSession gives the parties of a switch clients that may write.
func joinSession(ctx context.Context, s steps.Session, p switchPlan) (*hold, error) {
	h := &hold{plan: p, v: s.View, held: map[string][]Slot{}, late: map[string]bool{}}
	var err error
	if h.codis, err = Target().Session(ctx, s, ""); err != nil {
		return nil, err
	}
	if h.source, err = pika.Target().Session(ctx, s, p.Source.Target); err != nil {
		return nil, err
	}
	if h.dest, err = pika.Target().Session(ctx, s, p.Destination.Target); err != nil {
		return nil, err
	}
	h.meet()
	return h, nil
}

// joinView gives them clients that only look.
func joinView(ctx context.Context, v steps.View, p switchPlan) (*hold, error) {
	h := &hold{plan: p, v: v}
	var err error
	if h.codis, err = Target().View(ctx, v, ""); err != nil {
		return nil, err
	}
	if h.source, err = pika.Target().View(ctx, v, p.Source.Target); err != nil {
		return nil, err
	}
	if h.dest, err = pika.Target().View(ctx, v, p.Destination.Target); err != nil {
		return nil, err
	}
	h.meet()
	return h, nil
}

// meet makes clients of the recorded proxies. The dashboard, which names the product, may be dead by now.
func (h *hold) meet() {
	h.codis.knowProduct(h.plan.Product)
	for _, m := range h.plan.Proxies {
		h.join(m)
	}
}

// join adds a proxy that was not known; a process that has taken another's place has another token.
func (h *hold) join(m ProxyModel) {
	if !slices.ContainsFunc(h.proxies, func(p *Proxy) bool { return p.model.Token == m.Token }) {
		h.proxies = append(h.proxies, h.codis.Proxy(m))
	}
}

// knowProduct tells a client the product's name, so that the proxies can be spoken to while the dashboard is dead.
func (c *Client) knowProduct(product string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.product == "" {
		c.product = product
	}
}

// tell announces to the guardian what is about to be asked for.
func (h *hold) tell(word string) error {
	if h.announce == nil {
		return nil
	}
	return h.announce(word)
}

// waited is how long clients have been waiting, for messages.
func (h *hold) waited() string {
	if h.began.IsZero() {
		return "for a time that is not known here"
	}
	return h.v.Now().Sub(h.began).Round(time.Millisecond).String()
}

// lookLimit is how long one question or order may go unanswered while a switch is settled: far above what any took on a
// busy machine, and short enough that a party which hangs does not keep the others waiting.
const lookLimit = time.Second

// aMoment gives ctx the time of one question. While clients wait in a switch that goes forward, the pause's own limit is the only one.
func (h *hold) aMoment(ctx context.Context) (context.Context, context.CancelFunc) {
	if h.moving {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, lookLimit)
}
