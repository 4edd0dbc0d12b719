package zookeeper

import (
	"context"
	"encoding/json"

	"runbook/steps"
)

type getIn struct {
	Path string `yaml:"path,required" doc:"Path of the node, below the target's chroot."`
}

type getOut struct {
	Exists    bool     `yaml:"exists" doc:"There is such a node."`
	Value     *string  `yaml:"value" doc:"What it holds; null where there is none, or where that is no text."`
	JSON      any      `yaml:"json" doc:"The value read as JSON; null where it is none."`
	Version   *int     `yaml:"version" doc:"Version of the value: 0 when it was created, one more with each change; null where there is none."`
	Czxid     *int64   `yaml:"czxid" doc:"Number of the transaction that created it: another one after it was deleted and created again; null where there is none."`
	Ephemeral bool     `yaml:"ephemeral" doc:"It lives with a client's session."`
	Children  []string `yaml:"children" doc:"Names of its children, in order; empty where there are none."`
}

func get() *steps.Kind[getIn, getOut] {
	return &steps.Kind[getIn, getOut]{
		Name:    "zookeeper.get",
		Doc:     "Reads a node and lists its children. Sends sync first, so that a server that lags behind does not answer with what was there before.",
		Effect:  steps.Read,
		On:      []string{KindName},
		Example: `{id: proxies, uses: zookeeper.get, target: zk, with: {path: /codis3/demo/proxy}}`,
		Pitfalls: []string{
			"A node that does not exist is no error: ask exists, or expect it.",
			"Value and children are read one after the other: a child that comes or goes meanwhile is seen in one and not in the other.",
			"version tells that the value was written, not by whom: a value that was changed and changed back has another version.",
		},
		Valid: func(in getIn, unknown func(string) bool) []steps.Problem { return validPath(in.Path, unknown) },
		Read: func(ctx context.Context, v steps.View, in getIn) (getOut, error) {
			out := getOut{Children: []string{}}
			c, err := Target().View(ctx, v, "")
			if err != nil {
				return out, err
			}
			n, err := c.Node(ctx, in.Path)
			if err != nil || !n.Exists {
				return out, err
			}
			out.Exists, out.Value, out.Version, out.Czxid, out.Ephemeral = true, text(n), &n.Version, &n.Czxid, n.Owner != 0
			out.Children = append(out.Children, n.Children...)
			if json.Unmarshal(n.Data, &out.JSON) != nil {
				out.JSON = nil
			}
			return out, nil
		},
	}
}
