// Package codis is what a runbook does to a Codis product: its dashboard, and the proxies
// that the dashboard has registered.
//
// Start at [Target], the target kind that opens a [Client]; model.go has what dashboards and
// proxies tell, request.go the one way a request goes out, failure.go what a failure
// means. A client opened read-only asks nothing but what is on the list of reading routes.
// The kinds follow, one a file; [Kinds] lists them.
//
// Three things about Codis shape this package. The dashboard stores a mapping and pushes it
// to the proxies afterwards, so an error may come after the act, and what a proxy says of itself
// (GET /proxy/slots) is the only truth of what clients are served. Everything but
// /topom/model takes one global mutex that a hung proxy may hold for minutes, so every request
// has a deadline, and the outcome of one that changes something is unknown when it elapses.
// And "finished" says that the source's server has answered 0, not that a key has moved.
package codis

import (
	"context"
	"net/http"
	"sync"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// KindName is the target kind that this package opens.
const KindName = "codis"

// Config declares a Codis product by its dashboard.
type Config struct {
	Addr        schema.Addr   `yaml:"addr,required" doc:"Admin address of the dashboard, host:port."`
	Product     string        `yaml:"product" doc:"Name of the product. The dashboard is asked where none is given; with one, a dashboard of another product refuses what would change something."`
	ProductAuth schema.Secret `yaml:"product_auth" doc:"product_auth of the dashboard and its proxies: the password of the servers, and part of what a proxy is asked with."`
	Timeout     time.Duration `yaml:"timeout" doc:"Longest time to wait for a connection and the answer to one request." default:"10s"`
}

// Target is the target kind codis.
func Target() *steps.TargetKind[Config, *Client] {
	return &steps.TargetKind[Config, *Client]{
		Name:    KindName,
		Doc:     "A Codis 3.2 product: its dashboard, and through the dashboard its proxies, which must be reachable at the admin addresses they have registered.",
		Example: `{kind: codis, addr: "127.0.0.1:18080", product: demo, product_auth: "${{ secrets.codis }}"}`,
		Valid:   validConfig,
		Addr:    func(c Config) string { return string(c.Addr) },
		Open: func(_ context.Context, c Config, a steps.Access) (*Client, error) {
			return Open(c, a), nil
		},
		Close: (*Client).Close,
	}
}

func validConfig(c Config, _ func(string) bool) []steps.Problem {
	if c.Timeout < 0 {
		return []steps.Problem{{Input: "timeout", Message: "a time-out is not negative"}}
	}
	return nil
}

const defaultTimeout = 10 * time.Second

// Client speaks to one dashboard, and to the proxies of its product. It is safe for
// concurrent use and keeps no connection between two requests.
type Client struct {
	cfg Config
	x   *exchange

	mu      sync.Mutex
	product string // as the dashboard told it, where the target does not name it
}

// Open makes a client. Nothing is sent before the first request, so that a target may be declared before it exists.
func Open(cfg Config, a steps.Access) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Client{cfg: cfg, x: newExchange(a, cfg.Timeout), product: cfg.Product}
}

// Via has the client connect through dial, to the dashboard and to every proxy. For who opens it, before its first request.
func (c *Client) Via(dial steps.Dialer) *Client {
	c.x.dial = dial
	return c
}

// Addr is the dashboard's address as configured.
func (c *Client) Addr() string { return string(c.cfg.Addr) }

// ProductAuth is the password of the product's servers. Never print it.
func (c *Client) ProductAuth() schema.Secret { return c.cfg.ProductAuth }

// Close ends the client; there is nothing to end but its use.
func (c *Client) Close() error { return nil }

// Model is who the dashboard is. It is the only request that the global mutex never holds
// up, so it tells whether the process lives, and whether it is the same one.
func (c *Client) Model(ctx context.Context) (Model, error) {
	var m Model
	err := c.x.get(ctx, c.Addr(), "/topom/model", &m)
	return m, err
}

// Overview is everything at once, about 150 KB.
func (c *Client) Overview(ctx context.Context) (Overview, error) {
	var o Overview
	err := c.x.get(ctx, c.Addr(), "/topom", &o)
	return o, err
}

// Stats is the mapping, the groups, the proxies and the actions, about 125 KB.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := c.x.get(ctx, c.Addr(), "/topom/stats", &s)
	return s, err
}

// Slots is what the dashboard would have every proxy do with each slot.
func (c *Client) Slots(ctx context.Context) ([]Slot, error) {
	return c.x.slots(ctx, c.Addr(), "/topom/slots")
}

// Assign maps slots to groups at once, without moving data, and pushes them to every proxy.
// It overwrites an action of a slot without a word: look before. An error whose outcome is
// unknown may have come after the mapping was stored and some proxies had it.
func (c *Client) Assign(ctx context.Context, slots []SlotGroup) error {
	return c.put(ctx, slots, "slots/assign")
}

// Put asks the dashboard for a change: Put(ctx, "group/create", "9"). The xauth is put where it belongs.
func (c *Client) Put(ctx context.Context, path ...string) error {
	return c.put(ctx, nil, path...)
}

func (c *Client) put(ctx context.Context, body any, words ...string) error {
	path, err := commandPath(words...)
	if err != nil {
		return err
	}
	req := request{method: http.MethodPut, addr: c.Addr(), path: path, body: body}
	product, err := c.Product(ctx)
	if err != nil {
		return err
	}
	req.xauth = xauth(product)
	return c.x.put(ctx, req)
}

// Product is the product's name, asked once where the target does not give it.
func (c *Client) Product(ctx context.Context) (string, error) {
	c.mu.Lock()
	product := c.product
	c.mu.Unlock()
	if product != "" {
		return product, nil
	}
	m, err := c.Model(ctx)
	if err != nil {
		return "", err
	}
	if m.Product == "" {
		return "", steps.Errorf("reply", "get /topom/model on %s: the answer has no product_name: is this a Codis dashboard?", c.Addr())
	}
	c.mu.Lock()
	c.product = m.Product
	c.mu.Unlock()
	return m.Product, nil
}

// slots asks for a list of slots.
func (x *exchange) slots(ctx context.Context, addr, path string) ([]Slot, error) {
	req := request{method: http.MethodGet, addr: addr, path: path}
	body, err := x.do(ctx, req)
	if err != nil {
		return nil, err
	}
	slots, err := decodeSlots(body)
	if err != nil {
		return nil, unreadable(req, err)
	}
	return slots, nil
}
