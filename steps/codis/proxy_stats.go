package codis

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"runbook/steps"
)

type proxyStatsIn struct {
	Window time.Duration `yaml:"window" doc:"Time between the two looks that the rates are measured by." default:"1s" min:"10ms" max:"10m"`
}

type proxyStatsOut struct {
	Ops             int64           `yaml:"ops" doc:"Requests since each proxy's start or its last reset, all together." min:"0"`
	Errors          int64           `yaml:"errors" doc:"Those answered with an error: the proxies' own and the servers'." min:"0"`
	Fails           int64           `yaml:"fails" doc:"Those answered with an error of the proxy's own: no backend, a broken connection." min:"0"`
	OpsPerSecond    *float64        `yaml:"ops_per_second" doc:"Requests a second over the window; null where a proxy was restarted or reset meanwhile." min:"0"`
	ErrorsPerSecond *float64        `yaml:"errors_per_second" doc:"Errors a second over the window; null where a proxy was restarted or reset meanwhile." min:"0"`
	Sessions        int64           `yaml:"sessions" doc:"Connections of clients at the second look." min:"0"`
	PerProxy        []perProxyStats `yaml:"per_proxy" doc:"The same for each proxy, by id."`
}

type perProxyStats struct {
	AdminAddr       string   `yaml:"admin_addr" doc:"Address for the dashboard."`
	ProxyAddr       string   `yaml:"proxy_addr" doc:"Address for clients."`
	Online          bool     `yaml:"online" doc:"It serves clients."`
	Ops             int64    `yaml:"ops" doc:"Requests since its start or its last reset." min:"0"`
	Errors          int64    `yaml:"errors" doc:"Those answered with an error, its own or a server's." min:"0"`
	Fails           int64    `yaml:"fails" doc:"Those answered with an error of its own." min:"0"`
	OpsPerSecond    *float64 `yaml:"ops_per_second" doc:"Requests a second; null where it was restarted or reset in between." min:"0"`
	ErrorsPerSecond *float64 `yaml:"errors_per_second" doc:"Errors a second; null where it was restarted or reset in between." min:"0"`
	Sessions        int64    `yaml:"sessions" doc:"Connections of clients." min:"0"`
}

func proxyStats() *steps.Kind[proxyStatsIn, proxyStatsOut] {
	return &steps.Kind[proxyStatsIn, proxyStatsOut]{
		Name:    "codis.proxy-stats",
		Doc:     "Tells what the proxies count, and how fast: each is asked twice, window apart. Sends GET /topom/stats to the dashboard for the list, and GET /proxy/stats to each proxy.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: errors, uses: codis.proxy-stats, target: codis1, with: {window: 5s}, expect: "errors_per_second == 0"}`,
		Pitfalls: []string{
			"A request that waits at a held slot is neither counted nor an error until it ends: no errors does not mean that nobody waits.",
			"A proxy counts a connection's requests some 100 ms late, and the last ones of a connection that fell silent only when it ends: the numbers are for rates, not for bookkeeping.",
			"The counters begin at 0 when a proxy is restarted or reset; a rate over that moment is null, never a small number.",
			"A proxy that does not answer fails the step: a sum without it would look healthy.",
		},
		Read: readProxyStats,
	}
}

func readProxyStats(ctx context.Context, v steps.View, in proxyStatsIn) (proxyStatsOut, error) {
	out := proxyStatsOut{PerProxy: []perProxyStats{}}
	c, stats, err := look(ctx, v)
	if err != nil {
		return out, err
	}
	proxies := slices.Clone(stats.Proxy.Models)
	slices.SortFunc(proxies, func(a, b ProxyModel) int { return a.ID - b.ID })
	first, err := c.counters(ctx, proxies)
	if err != nil {
		return out, err
	}
	from := v.Now()
	if err := v.Sleep(ctx, in.Window); err != nil {
		return out, err
	}
	second, err := c.counters(ctx, proxies)
	if err != nil {
		return out, err
	}
	seconds := v.Now().Sub(from).Seconds()
	known := true
	var ops, errs float64
	for i, m := range proxies {
		was, is := first[i], second[i]
		p := perProxyStats{
			AdminAddr: m.AdminAddr, ProxyAddr: m.ProxyAddr, Online: is.Online && !is.Closed,
			Ops: is.Ops.Total, Fails: is.Ops.Fails, Errors: is.errors(), Sessions: is.Sessions.Alive,
		}
		if is.Ops.Total >= was.Ops.Total && is.errors() >= was.errors() && seconds > 0 {
			o, e := float64(is.Ops.Total-was.Ops.Total)/seconds, float64(is.errors()-was.errors())/seconds
			p.OpsPerSecond, p.ErrorsPerSecond = &o, &e
			ops, errs = ops+o, errs+e
		} else {
			known = false
		}
		out.Ops, out.Errors, out.Fails, out.Sessions = out.Ops+p.Ops, out.Errors+p.Errors, out.Fails+p.Fails, out.Sessions+p.Sessions
		out.PerProxy = append(out.PerProxy, p)
	}
	if known {
		out.OpsPerSecond, out.ErrorsPerSecond = &ops, &errs
	}
	return out, nil
}

// errors are all answers that were errors: the proxy counts its own and the servers' apart.
func (s ProxyStats) errors() int64 { return s.Ops.Fails + s.Ops.Redis.Errors }

// counters asks all proxies at once; each must answer.
func (c *Client) counters(ctx context.Context, proxies []ProxyModel) ([]ProxyStats, error) {
	all, errs := make([]ProxyStats, len(proxies)), make([]error, len(proxies))
	var asked sync.WaitGroup
	for i, m := range proxies {
		asked.Go(func() { all[i], errs[i] = c.Proxy(m).Stats(ctx) })
	}
	asked.Wait()
	for i, err := range errs {
		if err != nil {
			e := *steps.Classify(err)
			e.Err = fmt.Errorf("proxy %s does not tell its counters: %w", proxies[i].AdminAddr, err)
			return nil, &e
		}
	}
	return all, nil
}
