package codis_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// object is a JSON object with the order of its keys, which is part of what is compared.
type object struct {
	keys   []string
	values map[string]any
}

func parse(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return parseNext(d)
}

func parseNext(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := &object{values: map[string]any{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseNext(d)
			if err != nil {
				return nil, err
			}
			o.keys = append(o.keys, k.(string))
			o.values[k.(string)] = v
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseNext(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

// volatile are the values that differ from run to run; of them only the type is compared. Their keys and the order of these are not.
var volatile = regexp.MustCompile(`(^|/)(pid|start_time|compile|unixtime|now|cpu|mem|usecs|usecs_percall|calls|redis_errtype)$` +
	`|(^|/)(raw|runtime|sessions)/` +
	// made of the network cards of the machine; the proxies of the test are given theirs
	`|^(model/)?token$` +
	`|(^|/)ops/(total|fails|qps|redis/errors)$` +
	// set by the configuration of the recorded programs
	`|^config/proxy_(max_offheap_size|heap_placeholder)$` +
	// what servers and sentinels say of themselves
	`|(^|/)sentinels/stats/.*/(stats|sentinel)/` +
	`|^(process_id|run_id|tcp_port|uptime_in_seconds|used_memory|rdb_last_save_time|connected_slaves|instantaneous_ops_per_sec)$`)

// server is the path of what is known of one server: when it was asked is chance, so only that it was is compared.
var aServer = regexp.MustCompile(`(^|/)group/stats/[^/]+$`)

// differences tells where an answer is not what was recorded. Where a recording was cut, the rest is not compared.
func differences(path string, want, got any) []string {
	if aServer.MatchString(path) {
		if o, ok := got.(*object); !ok || o.values["unixtime"] == nil || o.values["stats"] == nil && o.values["error"] == nil {
			return []string{fmt.Sprintf("%s: %v", path, got)}
		}
		return nil
	}
	switch w := want.(type) {
	case *object:
		g, ok := got.(*object)
		if !ok {
			return []string{fmt.Sprintf("%s: an object is wanted, not %v", path, got)}
		}
		return objectDifferences(path, w, g)
	case []any:
		g, ok := got.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: a list is wanted, not %v", path, got)}
		}
		return listDifferences(path, w, g)
	}
	if volatile.MatchString(path) {
		if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
			return []string{fmt.Sprintf("%s: %T is wanted, not %T", path, want, got)}
		}
		return nil
	}
	if want != got {
		return []string{fmt.Sprintf("%s: %q is wanted, not %q", path, fmt.Sprint(want), fmt.Sprint(got))}
	}
	return nil
}

func objectDifferences(path string, want, got *object) []string {
	var out []string
	_, cut := want.values["..."]
	if !cut && !slices.Equal(want.keys, got.keys) {
		out = append(out, fmt.Sprintf("%s: keys %q are wanted, not %q", path, want.keys, got.keys))
	}
	for _, k := range want.keys {
		if k == "..." {
			continue
		}
		g, ok := got.values[k]
		if !ok {
			if cut {
				out = append(out, fmt.Sprintf("%s: no %s", path, k))
			}
			continue
		}
		out = append(out, differences(strings.TrimPrefix(path+"/"+k, "/"), want.values[k], g)...)
	}
	return out
}

func listDifferences(path string, want, got []any) []string {
	cut := false
	if n := len(want); n > 0 {
		if s, ok := want[n-1].(string); ok && strings.HasPrefix(s, "...") {
			cut, want = true, want[:n-1]
		}
	}
	if strings.HasSuffix(path, "Stack") { // whose lines are the program's own
		if len(got) == 0 {
			return []string{path + ": no stack"}
		}
		return nil
	}
	if !cut && len(want) != len(got) || len(got) < len(want) {
		return []string{fmt.Sprintf("%s: %d elements are wanted, not %d", path, len(want), len(got))}
	}
	var out []string
	for i, w := range want {
		g := got[i]
		if o, ok := w.(*object); ok && cut && o.values["id"] != nil { // the elements that somebody found worth keeping
			at := slices.IndexFunc(got, func(v any) bool { return v.(*object).values["id"] == o.values["id"] })
			if at < 0 {
				out = append(out, fmt.Sprintf("%s: no element %v", path, o.values["id"]))
				continue
			}
			g = got[at]
		}
		out = append(out, differences(fmt.Sprintf("%s/%d", path, i), w, g)...)
	}
	return out
}
