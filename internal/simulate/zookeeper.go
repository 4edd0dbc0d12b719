package simulate

import (
	"context"

	"runbook/internal/simulate/zookeeper"
)

// ZooKeeper gives a zookeeper by name; nil where there is none.
func (w *World) ZooKeeper(name string) *zookeeper.Server {
	return as[*zookeeper.Server](w, name)
}

func startZooKeeper(_ context.Context, w *World, s *system) error {
	server, err := zookeeper.Start(zookeeper.Options{Name: s.name, Addr: s.actual, Tree: zookeeper.NewTree(w.clock), Clock: w.clock})
	if err != nil {
		return err
	}
	w.began(s, server, 0)
	return nil
}
