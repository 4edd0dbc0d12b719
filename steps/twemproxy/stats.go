package twemproxy

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"runbook/steps"
)

type statsIn struct {
	Pool string `yaml:"pool" doc:"Only this pool; all where none is given."`
}

type statsOut struct {
	Version     string        `yaml:"version" doc:"Release of the proxy."`
	Uptime      time.Duration `yaml:"uptime" doc:"How long it has been running, in whole seconds." min:"0"`
	Connections int           `yaml:"connections" doc:"Connections open now, those to servers and its own included." min:"0"`
	Requests    int           `yaml:"requests" doc:"Requests sent to servers since it started, over the pools." min:"0"`
	Errors      int           `yaml:"errors" doc:"Failures of servers since it started, over the pools: connections refused, timed out or cut." min:"0"`
	Pools       []poolStats   `yaml:"pools" doc:"The same of each pool, by name."`
}

type poolStats struct {
	Name        string        `yaml:"name" doc:"Name of the pool."`
	Connections int           `yaml:"connections" doc:"Connections of clients open now." min:"0"`
	ClientErrs  int           `yaml:"client_errors" doc:"Connections of clients closed for a request that the proxy does not take, or cut." min:"0"`
	Ejects      int           `yaml:"ejects" doc:"How often a server was ejected; more than 0 means that keys were sent to servers that do not own them." min:"0"`
	Forwards    int           `yaml:"forward_errors" doc:"Requests that no server answered." min:"0"`
	Servers     []serverStats `yaml:"servers" doc:"Its servers, in the order of slots."`
}

type serverStats struct {
	Name      string `yaml:"name" doc:"Name of the server."`
	Requests  int    `yaml:"requests" doc:"Requests sent to it." min:"0"`
	Responses int    `yaml:"responses" doc:"Answers of it." min:"0"`
	Errors    int    `yaml:"errors" doc:"Connections to it that were refused, timed out or cut." min:"0"`
	Waiting   int    `yaml:"waiting" doc:"Requests sent or to be sent that it has not answered." min:"0"`
	Ejected   bool   `yaml:"ejected" doc:"It is ejected, or was the last time it failed."`
}

func stats() *steps.Kind[statsIn, statsOut] {
	return &steps.Kind[statsIn, statsOut]{
		Name:    "twemproxy.stats",
		Doc:     "Reads the statistics of the running proxy: connects to stats_addr from its host and reads one JSON object.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: proxy_errors, uses: twemproxy.stats, target: proxy, with: {pool: alpha}}`,
		Pitfalls: []string{
			"The counts are as old as the proxy's stats-interval (-i), 30 s unless told otherwise: a count that stands still right after a change proves nothing.",
			"All counts begin at 0 with each restart.",
			"It tells the names of the servers it runs with, not their addresses: whether it has read a changed file cannot be seen here.",
		},
		Read: func(ctx context.Context, v steps.View, in statsIn) (statsOut, error) {
			p, err := look(ctx, v)
			if err != nil {
				return statsOut{}, err
			}
			text, err := p.statistics(ctx)
			if err != nil {
				return statsOut{}, err
			}
			out, err := readStats(text, in.Pool)
			if err != nil {
				return statsOut{}, steps.Errorf("reply", "statistics of %s: %w", p.cfg.StatsAddr, err)
			}
			if in.Pool != "" && len(out.Pools) == 0 {
				return statsOut{}, steps.Precondition("statistics of %s: the proxy runs without a pool %s", p.cfg.StatsAddr, in.Pool)
			}
			return out, nil
		},
	}
}

// readStats reads the object: numbers and texts are the proxy's, objects its pools; in a pool, numbers are its own and
// objects its servers.
func readStats(text []byte, only string) (statsOut, error) {
	out := statsOut{Pools: []poolStats{}}
	var top struct {
		Version     string `json:"version"`
		Uptime      int    `json:"uptime"`
		Connections int    `json:"curr_connections"`
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &top); err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return out, err
	}
	out.Version, out.Uptime, out.Connections = top.Version, time.Duration(top.Uptime)*time.Second, top.Connections
	for name, raw := range fields {
		if !isObject(raw) || only != "" && name != only {
			continue
		}
		p, err := readPoolStats(name, raw)
		if err != nil {
			return out, err
		}
		for _, s := range p.Servers {
			out.Requests += s.Requests
			out.Errors += s.Errors
		}
		out.Pools = append(out.Pools, p)
	}
	slices.SortFunc(out.Pools, func(a, b poolStats) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func readPoolStats(name string, raw json.RawMessage) (poolStats, error) {
	p := poolStats{Name: name, Servers: []serverStats{}}
	var counts struct {
		Connections int `json:"client_connections"`
		ClientErr   int `json:"client_err"`
		Ejects      int `json:"server_ejects"`
		Forwards    int `json:"forward_error"`
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &counts); err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return p, err
	}
	p.Connections, p.ClientErrs, p.Ejects, p.Forwards = counts.Connections, counts.ClientErr, counts.Ejects, counts.Forwards
	for name, raw := range fields {
		if !isObject(raw) {
			continue
		}
		var s struct {
			EOF       int   `json:"server_eof"`
			Err       int   `json:"server_err"`
			TimedOut  int   `json:"server_timedout"`
			EjectedAt int64 `json:"server_ejected_at"`
			Requests  int   `json:"requests"`
			Responses int   `json:"responses"`
			In        int   `json:"in_queue"`
			Out       int   `json:"out_queue"`
		}
		if err := json.Unmarshal(raw, &s); err != nil {
			return p, err
		}
		p.Servers = append(p.Servers, serverStats{
			Name: name, Requests: s.Requests, Responses: s.Responses, Errors: s.EOF + s.Err + s.TimedOut, Waiting: s.In + s.Out, Ejected: s.EjectedAt != 0,
		})
	}
	slices.SortFunc(p.Servers, func(a, b serverStats) int { return compareNames(a.Name, b.Name) })
	return p, nil
}

func isObject(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }
