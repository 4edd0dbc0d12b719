package steps

import (
	"context"
	"fmt"
	"net"
	"reflect"
)

// TargetKind is a kind of system acted upon. Cfg is its declaration under targets (yaml
// tags are the keys, doc tags the reference), Client what speaks to it.
type TargetKind[Cfg, Client any] struct {
	Name string
	Doc  string
	// Example of a declaration, as a YAML flow map.
	Example string
	// Valid checks a declaration: offline in lint, where fields only known while running, such
	// as secrets, have their zero value and are named in unknown; and again when the target is
	// bound, where all are known.
	Valid func(cfg Cfg, unknown func(field string) bool) []Problem
	// Addr is where it is: journaled with each step, compared at a resume.
	Addr func(cfg Cfg) string
	// Open connects. A client opened ReadOnly refuses whatever may change something,
	// by an allow-list of what is known to read.
	Open func(ctx context.Context, cfg Cfg, a Access) (Client, error)
	// Close ends the client.
	Close func(c Client) error
}

// Dialer connects to an address. A client that speaks to more than its own address (a replica's master, a
// registered proxy) does all of it through one, so that a sandbox can keep it inside.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// View gives a client that refuses to write, for the target of this name (empty: the step's own).
func (k *TargetKind[Cfg, Client]) View(ctx context.Context, v View, name string) (Client, error) {
	return connect[Client](ctx, v.env, name, ReadOnly)
}

// Session gives a client that may write, for the target of this name (empty: the step's own).
func (k *TargetKind[Cfg, Client]) Session(ctx context.Context, s Session, name string) (Client, error) {
	return connect[Client](ctx, s.env, name, ReadWrite)
}

// ViewOf is View for a target that the runbook does not name, such as the local host of
// a step without a target.
func (k *TargetKind[Cfg, Client]) ViewOf(ctx context.Context, v View, t Target) (Client, error) {
	return connectTo[Client](ctx, v.env, t, ReadOnly)
}

// SessionOf is Session for a target that the runbook does not name.
func (k *TargetKind[Cfg, Client]) SessionOf(ctx context.Context, s Session, t Target) (Client, error) {
	return connectTo[Client](ctx, s.env, t, ReadWrite)
}

func connect[Client any](ctx context.Context, env Env, name string, a Access) (Client, error) {
	t, err := env.Target(name)
	if err != nil {
		var none Client
		return none, err
	}
	return connectTo[Client](ctx, env, t, a)
}

func connectTo[Client any](ctx context.Context, env Env, t Target, a Access) (Client, error) {
	var none Client
	c, err := env.Connect(ctx, t, a)
	if err != nil {
		return none, err
	}
	client, ok := c.(Client)
	if !ok {
		return none, fmt.Errorf("target %s of kind %s cannot be used here: it gives %T, not %s", t.Name, t.Kind, c, reflect.TypeFor[Client]())
	}
	return client, nil
}

// TargetDefinition is a target kind with its types erased. A configuration is passed as a pointer to Cfg.
type TargetDefinition struct {
	Name, Doc, Example string
	Config             reflect.Type
	Locks              bool // its client is a Locker
	Valid              func(cfg any, unknown func(string) bool) []Problem
	Addr               func(cfg any) string
	Open               func(ctx context.Context, cfg any, a Access) (any, error)
	Close              func(client any) error
}

// Define erases the target kind's types.
func (k *TargetKind[Cfg, Client]) Define() *TargetDefinition {
	return &TargetDefinition{
		Name: k.Name, Doc: k.Doc, Example: k.Example, Config: reflect.TypeFor[Cfg](),
		Locks: reflect.TypeFor[Client]().Implements(reflect.TypeFor[Locker]()),
		Valid: func(cfg any, unknown func(string) bool) []Problem {
			if k.Valid == nil {
				return nil
			}
			return k.Valid(*cfg.(*Cfg), unknown)
		},
		Addr: func(cfg any) string {
			if k.Addr == nil {
				return ""
			}
			return k.Addr(*cfg.(*Cfg))
		},
		Open: func(ctx context.Context, cfg any, a Access) (any, error) {
			return k.Open(ctx, *cfg.(*Cfg), a)
		},
		Close: func(c any) error {
			if k.Close == nil {
				return nil
			}
			return k.Close(c.(Client))
		},
	}
}
