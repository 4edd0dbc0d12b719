package codis

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"runbook/schema"
	"runbook/steps"
)

type addProxyIn struct {
	AdminAddr schema.Addr `yaml:"admin_addr,required" doc:"Admin address of the proxy, IP:port, as the dashboard reaches it."`
}

type addProxyOut struct {
	AdminAddr string `yaml:"admin_addr" doc:"Admin address that the proxy has registered."`
	ProxyAddr string `yaml:"proxy_addr" doc:"Address for clients."`
	Token     string `yaml:"token" doc:"Token of the proxy, which stays the same over restarts."`
	Online    bool   `yaml:"online" doc:"It serves clients: true."`
}

func addProxy() *steps.Kind[addProxyIn, addProxyOut] {
	return &steps.Kind[addProxyIn, addProxyOut]{
		Name:       "codis.add-proxy",
		Doc:        "Registers a running proxy with the dashboard, which gives it its slots and puts it online. Sends GET /proxy/model to the proxy, PUT proxy/create to the dashboard (proxy/online where it is registered already), and reads back what the proxy serves.",
		Effect:     steps.Write,
		On:         []string{KindName},
		Idempotent: true,
		Example:    `{id: join, uses: codis.add-proxy, target: codis1, with: {admin_addr: "10.0.0.8:11080"}}`,
		Pitfalls: []string{
			"A proxy that joins serves every slot open, with the mapping of the moment: one that joins while slots are held for a switch lets clients write past the hold. It is refused while a slot is held at any proxy.",
			"The dashboard speaks to the address that the proxy has registered, not to the one given here: 0.0.0.0, a host name or a loopback address in it is refused.",
			"A proxy of another product is refused by its name, one with another product_auth by the dashboard (check xauth failed).",
			"From then on a change of the mapping fails while this proxy does not answer.",
		},
		Check: checkAddProxy,
		Plan: func(_ context.Context, v *steps.View, in addProxyIn) (steps.Change, error) {
			return steps.Change{Lines: []steps.Line{line(v, "proxy/create", string(in.AdminAddr))}}, nil
		},
		Probe:  probeAddProxy,
		Apply:  applyAddProxy,
		NoUndo: "Codis takes a proxy out of its list by shutting its process down: codis.remove-proxy does that on purpose",
	}
}

func checkAddProxy(ctx context.Context, v steps.View, in addProxyIn) error {
	c, stats, err := look(ctx, v)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("add proxy %s", in.AdminAddr)
	m, err := c.Proxy(ProxyModel{AdminAddr: string(in.AdminAddr)}).Model(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	product, err := c.Product(ctx)
	if err != nil {
		return err
	}
	if m.Product != product {
		return steps.Precondition("%s: it is a proxy of product %q, not %q", what, m.Product, product)
	}
	dashboard, err := c.Model(ctx)
	if err != nil {
		return err
	}
	if why := badAdminAddr(m.AdminAddr, dashboard.AdminAddr); why != "" {
		return steps.Precondition("%s: it has registered the admin address %s: %s", what, m.AdminAddr, why).
			WithHint("start it with --host-admin and --host-proxy")
	}
	routings, err := c.allRoutings(ctx, slices.DeleteFunc(slices.Clone(stats.Proxy.Models), func(p ProxyModel) bool { return p.Token == m.Token }))
	if err != nil {
		return err
	}
	return notHeld(routings, allSlots(), what)
}

// badAdminAddr says why an address that a proxy or a dashboard has registered does not serve the others; empty: it does.
func badAdminAddr(addr, dashboard string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "it is not host:port"
	}
	ip := net.ParseIP(host)
	switch {
	case ip == nil:
		return "it is a host name, which everybody would have to resolve alike; Codis registers one where it was started with 0.0.0.0"
	case ip.IsUnspecified():
		return "it is not the address of a machine"
	case ip.IsLoopback() && !loopback(dashboard):
		return "it is a loopback address, which is another machine to the dashboard at " + dashboard
	}
	return ""
}

// registered finds a proxy in the list, by an address it has registered.
func (s Stats) registered(adminAddr string) (ProxyModel, bool) {
	i := slices.IndexFunc(s.Proxy.Models, func(p ProxyModel) bool { return p.AdminAddr == adminAddr })
	if i < 0 {
		return ProxyModel{}, false
	}
	return s.Proxy.Models[i], true
}

func probeAddProxy(ctx context.Context, v steps.View, in addProxyIn) (steps.State, addProxyOut, error) {
	c, err := view(ctx, v)
	if err != nil {
		return steps.Unclear, addProxyOut{}, err
	}
	joined, out, err := c.joined(ctx, string(in.AdminAddr))
	switch {
	case err != nil:
		return steps.Unclear, out, err
	case joined == "":
		return steps.Done, out, nil
	case out.Token != "":
		return steps.Partial, addProxyOut{}, nil
	}
	return steps.Untouched, addProxyOut{}, nil
}

// joined tells why a proxy does not serve as the dashboard would have it; empty: it does. The
// output has a token where the dashboard has registered it.
func (c *Client) joined(ctx context.Context, adminAddr string) (why string, out addProxyOut, err error) {
	stats, err := c.Stats(ctx)
	if err != nil {
		return "", out, err
	}
	m, err := c.Proxy(ProxyModel{AdminAddr: adminAddr}).Model(ctx)
	if err != nil {
		return "", out, err
	}
	if !slices.ContainsFunc(stats.Proxy.Models, func(p ProxyModel) bool { return p.Token == m.Token }) {
		return "it is not registered", out, nil
	}
	out = addProxyOut{AdminAddr: m.AdminAddr, ProxyAddr: m.ProxyAddr, Token: m.Token}
	p := c.Proxy(m)
	says, err := p.Stats(ctx)
	if err != nil {
		return "", out, err
	}
	if out.Online = says.Online && !says.Closed; !out.Online {
		return "it is not online", out, nil
	}
	wanted, err := c.Slots(ctx)
	if err != nil {
		return "", out, err
	}
	slots, err := p.Slots(ctx)
	if err != nil {
		return "", out, err
	}
	if d := (Routing{Slots: slots}).differs(wanted, allSlots()); len(d) > 0 {
		return fmt.Sprintf("it serves slots %s otherwise than the dashboard would have it", d), out, nil
	}
	return "", out, nil
}

func applyAddProxy(ctx context.Context, s steps.Session, in addProxyIn) (addProxyOut, error) {
	c, err := session(ctx, s)
	if err != nil {
		return addProxyOut{}, err
	}
	addr := string(in.AdminAddr)
	why, out, err := c.joined(ctx, addr)
	if err != nil || why == "" {
		return out, err
	}
	if err := checkAddProxy(ctx, s.View, in); err != nil { // a hold may have begun since the check
		return addProxyOut{}, err
	}
	command := "proxy/create"
	if out.Token != "" {
		command = "proxy/online"
	}
	err = c.Put(ctx, command, addr)
	if cause, ok := Cause(err); ok && strings.HasSuffix(cause, "already exists") {
		err = c.Put(ctx, "proxy/online", addr)
	}
	if err != nil {
		return addProxyOut{}, err
	}
	if why, out, err = c.joined(ctx, addr); err != nil {
		return addProxyOut{}, afterwards(err)
	}
	if why != "" {
		return addProxyOut{}, afterwards(steps.Errorf("conflict", "add proxy %s: the dashboard has said OK, and %s", addr, why))
	}
	return out, nil
}
