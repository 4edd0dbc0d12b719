package zookeeper

// event is what happened to a node, by the numbers of the protocol.
type event struct {
	kind eventKind
	path string
}

type eventKind int32

const (
	nodeCreated eventKind = iota + 1
	nodeDeleted
	nodeDataChanged
	nodeChildrenChanged
)

// watcher is told of one event for each watch it has set. It must not block.
type watcher interface{ tell(event) }

// watches are set by reads and fire once. The tree's lock guards them.
type watches struct {
	data, child map[string]map[watcher]bool
}

func newWatches() watches {
	return watches{map[string]map[watcher]bool{}, map[string]map[watcher]bool{}}
}

func set(m map[string]map[watcher]bool, path string, w watcher) {
	if m[path] == nil {
		m[path] = map[watcher]bool{}
	}
	m[path][w] = true
}

// fire tells everybody who waits for the event; one who watches both a node and its children hears of its removal once.
func (ws watches) fire(e event) {
	told := map[watcher]bool{}
	for _, m := range ws.of(e.kind) {
		for w := range m[e.path] {
			if !told[w] {
				told[w] = true
				w.tell(e)
			}
		}
		delete(m, e.path)
	}
}

func (ws watches) of(k eventKind) []map[string]map[watcher]bool {
	switch k {
	case nodeDeleted:
		return []map[string]map[watcher]bool{ws.data, ws.child}
	case nodeChildrenChanged:
		return []map[string]map[watcher]bool{ws.child}
	}
	return []map[string]map[watcher]bool{ws.data}
}

// forget drops what a connection that has gone was waiting for.
func (ws watches) forget(w watcher) {
	for _, m := range []map[string]map[watcher]bool{ws.data, ws.child} {
		for p, set := range m {
			delete(set, w)
			if len(set) == 0 {
				delete(m, p)
			}
		}
	}
}
