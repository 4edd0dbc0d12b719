package codis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// createProxy makes a proxy known that is not; it gets its slots and begins to serve.
func (t *topom) createProxy(addr string) error {
	return t.locked(func() error {
		p, c, err := t.meet(addr)
		if err != nil {
			return err
		}
		if t.cache.proxies[p.Token] != nil {
			return tracef("proxy-[%s] already exists", p.Token)
		}
		return t.introduce(p, c)
	})
}

// onlineProxy is createProxy for one that may be known already.
func (t *topom) onlineProxy(addr string) error {
	return t.locked(func() error {
		p, c, err := t.meet(addr)
		if err != nil {
			switch {
			case p == nil:
				return tracef("proxy@%s fetch model failed", addr)
			default:
				return tracef("proxy@%s check xauth failed", addr)
			}
		}
		return t.introduce(p, c)
	})
}

// meet asks a proxy who it is, and whether it has the same password. The model is nil where it did not say who it is.
func (t *topom) meet(addr string) (*ProxyModel, *proxyClient, error) {
	p := &ProxyModel{}
	if err := t.request(t.ctx, http.MethodGet, "http://"+addr+"/api/proxy/model", nil, p); err != nil {
		return nil, nil, tracef("proxy@%s fetch model failed, %s", addr, err)
	}
	c := t.client(p)
	if err := c.call(t.ctx, http.MethodGet, "xping", nil, nil); err != nil {
		return p, nil, tracef("proxy@%s check xauth failed, %s", addr, err)
	}
	return p, c, nil
}

func (t *topom) introduce(p *ProxyModel, c *proxyClient) error {
	if known := t.cache.proxies[p.Token]; known != nil {
		p.ID = known.ID
	} else {
		for _, other := range t.cache.proxies {
			p.ID = max(p.ID, other.ID)
		}
		p.ID++
	}
	t.cache.dirtyProxy(p.Token)
	if err := t.saveProxy(p); err != nil {
		return err
	}
	return t.initialise(p, c)
}

func (t *topom) reinitProxy(token string) error {
	return t.locked(func() error {
		p, err := t.proxy(token)
		if err != nil {
			return err
		}
		return t.initialise(p, t.client(p))
	})
}

// initialise sends a proxy all slots as the mapping has them, and has it serve: what was held there is open afterwards.
func (t *topom) initialise(p *ProxyModel, c *proxyClient) error {
	if err := c.call(t.ctx, http.MethodPut, "fillslots", t.view(t.cache.slots, p), nil); err != nil {
		return tracef("proxy-[%s] fillslots failed", p.Token)
	}
	if err := c.call(t.ctx, http.MethodPut, "start", nil, nil); err != nil {
		return tracef("proxy-[%s] start failed", p.Token)
	}
	if err := c.call(t.ctx, http.MethodPut, "sentinels", t.cache.sentinels, nil); err != nil {
		return tracef("proxy-[%s] set sentinels failed", p.Token)
	}
	return nil
}

// removeProxy ends the proxy's process and forgets it. One that does not answer is only forgotten by force.
func (t *topom) removeProxy(token string, force bool) error {
	return t.locked(func() error {
		p, err := t.proxy(token)
		if err != nil {
			return err
		}
		if err := t.client(p).call(t.ctx, http.MethodPut, "shutdown", nil, nil); err != nil && !force {
			return tracef("proxy-[%s] shutdown failed", token)
		}
		t.cache.dirtyProxy(token)
		if err := t.store.remove(ProxyPath(t.opts.Product, token)); err != nil {
			return tracef("store: remove proxy-[%s] failed", token)
		}
		return nil
	})
}

// push sends slots to all proxies at once and waits for all of them. The others have theirs where one fails.
func (t *topom) push(slots ...*SlotMapping) error {
	if len(slots) == 0 {
		return nil
	}
	proxies := t.sortedProxies()
	errs := make([]error, len(proxies))
	var wg sync.WaitGroup
	for i, p := range proxies {
		view := t.view(slots, p)
		wg.Go(func() { errs[i] = t.client(p).call(t.ctx, http.MethodPut, "fillslots", view, nil) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return tracef("proxy-[%s] resync slots failed", proxies[i].Token)
		}
	}
	return nil
}

// proxyClient calls the admin API of one proxy.
type proxyClient struct {
	*topom
	addr, xauth string
}

func (t *topom) client(p *ProxyModel) *proxyClient {
	return &proxyClient{t, p.AdminAddr, ProxyXAuth(t.opts.Product, t.opts.ProductAuth, p.Token)}
}

func (c *proxyClient) call(ctx context.Context, method, name string, body, into any) error {
	return c.request(ctx, method, "http://"+c.addr+"/api/proxy/"+name+"/"+c.xauth, body, into)
}

// httpClient keeps connections open between calls, as the real one does.
func (p *process) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := p.within(ctx, dialTimeout)
			defer cancel()
			return p.dial(ctx, network, addr)
		},
	}}
}

// request is one call to a proxy, bounded by pushTimeout. What the proxy answers as a failure is the error.
func (t *topom) request(ctx context.Context, method, url string, body, into any) error {
	ctx, cancel := t.within(ctx, pushTimeout)
	defer cancel()
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(encode(body))
	}
	r, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return trace(err)
	}
	r.Header.Set(fromHeader, FromDashboard)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := t.http.Do(r)
	if err != nil {
		return trace(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return trace(err)
	}
	if !t.gate.pass(t.ctx) {
		return errEnded
	}
	switch resp.StatusCode {
	case http.StatusOK:
		if into == nil {
			return nil
		}
		return trace(json.Unmarshal(b, into))
	case statusFailed:
		var e remoteError
		if err := json.Unmarshal(b, &e); err != nil {
			return trace(err)
		}
		return &tracedError{errors.New("[Remote Error] " + e.Cause), e.Stack}
	}
	return trace(fmt.Errorf("[%d] %s - %s", resp.StatusCode, http.StatusText(resp.StatusCode), url))
}
