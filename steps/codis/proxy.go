package codis

import (
	"context"
	"net/http"
)

// Proxy speaks to the admin API of one registered proxy, with the access of its client.
// What is sent to a proxy here reaches it past the dashboard, which knows nothing of it.
type Proxy struct {
	c     *Client
	model ProxyModel
}

// Proxy gives the admin API of a proxy as the dashboard has registered it. A process with another
// token at that address refuses what would change something.
func (c *Client) Proxy(m ProxyModel) *Proxy { return &Proxy{c: c, model: m} }

// Addr is the proxy's admin address.
func (p *Proxy) Addr() string { return p.model.AdminAddr }

// Token is the proxy's token as registered.
func (p *Proxy) Token() string { return p.model.Token }

// Model is who the proxy says it is.
func (p *Proxy) Model(ctx context.Context) (ProxyModel, error) {
	var m ProxyModel
	err := p.c.x.get(ctx, p.Addr(), "/proxy/model", &m)
	return m, err
}

// Stats is what the proxy counts.
func (p *Proxy) Stats(ctx context.Context) (ProxyStats, error) {
	var s ProxyStats
	err := p.c.x.get(ctx, p.Addr(), "/proxy/stats", &s)
	return s, err
}

// Slots is what the proxy does with every slot: the only truth of what clients are routed to.
// It waits while the proxy changes a slot, which in turn waits for requests in flight.
func (p *Proxy) Slots(ctx context.Context) ([]Slot, error) {
	return p.c.x.slots(ctx, p.Addr(), "/proxy/slots")
}

// FillSlots has the proxy do with these slots what they say. It is not atomic: the list is carried out
// up to the first bad slot. A request without an answer may still be carried out, much later: repeat and
// read back until the proxy has answered.
func (p *Proxy) FillSlots(ctx context.Context, slots []Slot) error {
	product, err := p.c.Product(ctx)
	if err != nil {
		return err
	}
	return p.c.x.put(ctx, request{
		method: http.MethodPut, addr: p.Addr(), path: "/api/proxy/fillslots/" + maskedXAuth, body: slots,
		xauth: xauth(product, p.c.cfg.ProductAuth.Reveal(), p.model.Token),
	})
}
