package runner

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"runbook/runner/expression"
	"runbook/steps"
)

// item is one item of a loop or fan-out.
type item struct {
	index int
	key   string
	value any
	path  string
}

// loop runs a node for each item of its list, or each of its targets.
func (x *run) loop(ctx context.Context, s *scope, n *Node, path string) *halt {
	began := x.clock.Now()
	if !x.past.started(path) {
		if err := x.must(s, "require", n.Require, nil); err != nil {
			return x.refused(s, n, path, err)
		}
	}
	items, err := x.items(s, n, path)
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	if n.Confirm == nil || n.Confirm.Each == "" || n.Confirm.Each == "run" {
		if h := x.asked(ctx, s, n, path); h != nil {
			return h
		}
	}
	l, err := x.newLoop(s, n, path, items)
	if err != nil {
		return x.refused(s, n, path, steps.Classify(err))
	}
	if !x.past.started(path) {
		if _, err := x.record(recStepStarted, path, &StepStarted{Attempt: 1}); err != nil {
			return broken(path, err)
		}
	}
	h := x.watched(ctx, s, n, path, l.run)
	if h != nil && !h.own() {
		return h
	}
	return l.finish(ctx, began, h)
}

// newLoop binds the settings of a loop.
func (x *run) newLoop(s *scope, n *Node, path string, items []item) (*looping, error) {
	l := &looping{x: x, n: n, s: s, path: path, items: items}
	if n.NeedItems {
		l.results = make([]map[string]any, len(items))
	}
	return l, l.settings()
}

// finish keeps and journals how a loop ended.
func (l *looping) finish(ctx context.Context, began time.Time, h *halt) *halt {
	x := l.x
	body := &StepFinished{Status: x.acts.status(ctx, h), Duration: seconds(x.clock.Now().Sub(began)), Attempts: 1}
	if h != nil {
		body.Error, body.Decided = errorBody(h.err), h.decided
	}
	result := l.result()
	l.s.set(l.n.ID, result)
	if was := x.past.live(l.path); h == nil && x.past.finished(l.path) {
		seal(result, was.finished)
		return nil
	}
	seal(result, body)
	x.dryStatus(ctx, result, unknownKey)
	x.noteDry(x.glance(l.s, l.n, l.path), body, l.found())
	if _, err := x.record(recStepFinished, l.path, body); err != nil {
		return broken(l.path, err)
	}
	return h
}

// found are the items that a dry run has found and a plan cannot; nil: the plan knows them.
func (l *looping) found() []FrozenItem {
	if l.x.dry == nil || l.n.FanOut || l.n.Loop.Known && l.s.frame.unit == l.x.prog.Root {
		return nil
	}
	return frozenItems(l.items)
}

// looping is a loop under way.
type looping struct {
	x       *run
	n       *Node
	s       *scope
	path    string
	items   []item
	results []map[string]any // by index; only where somebody reads them

	parallel, tolerated int
	waves               []int // how many items each wave has

	mu       sync.Mutex
	failures int
	end      *halt
}

func (l *looping) settings() error {
	l.parallel = 1
	var err error
	if l.n.Loop == nil {
		l.waves, err = l.x.waves(l.s, nil, len(l.items))
		return err
	}
	if l.n.Loop.MaxParallel.Set {
		if l.parallel, err = setting(l.x, l.s, l.n.Loop.MaxParallel, "max-parallel"); err != nil {
			return err
		}
		l.parallel = max(l.parallel, 1)
	}
	if l.tolerated, err = setting(l.x, l.s, l.n.Loop.MaxFailures, "max-failures"); err != nil {
		return err
	}
	l.waves, err = l.x.waves(l.s, l.n.Loop.Batch, len(l.items))
	return err
}

// waves reads batch: [1, 10%, 100%] as numbers of items; the last size repeats.
func (x *run) waves(s *scope, batch *Template, total int) ([]int, error) {
	if total == 0 {
		return nil, nil
	}
	if batch == nil {
		return []int{total}, nil
	}
	v, err := x.eval(s, batch)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var sizes []int
	for _, e := range list {
		size, err := waveSize(e, total)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size)
	}
	var waves []int
	for left, i := total, 0; left > 0; i++ {
		size := min(sizes[min(i, len(sizes)-1)], left)
		waves = append(waves, size)
		left -= size
	}
	return waves, nil
}

func waveSize(v any, total int) (int, error) {
	switch v := v.(type) {
	case int:
		if v > 0 {
			return v, nil
		}
	case string:
		if p, ok := strings.CutSuffix(v, "%"); ok {
			if f, err := strconv.ParseFloat(strings.TrimSpace(p), 64); err == nil && f > 0 && f <= 100 {
				return max(1, int(math.Ceil(f/100*float64(total)))), nil
			}
		} else if i, err := strconv.Atoi(v); err == nil && i > 0 {
			return i, nil
		}
	}
	return 0, fmt.Errorf("batch: %v is neither a number of items nor a percentage", v)
}

// run goes through the waves.
func (l *looping) run(ctx context.Context) *halt {
	if l.n.Wait != nil && l.n.Wait.All && l.x.dry == nil {
		return l.waitAll(ctx)
	}
	at := 0
	for w, size := range l.waves {
		batch := l.items[at : at+size]
		at += size
		if h := l.wave(ctx, w, batch); h != nil {
			return h
		}
		if h := l.afterBatch(ctx, w, batch); h != nil {
			return h
		}
		if w < len(l.waves)-1 {
			if h := l.between(ctx, w); h != nil {
				return h
			}
		}
	}
	return nil
}

// between pauses between two waves; not again where a later wave had begun before a crash.
func (l *looping) between(ctx context.Context, w int) *halt {
	if l.n.Loop == nil || !l.n.Loop.PauseBetween.Set || l.x.dry != nil {
		return nil
	}
	next := 0
	for _, size := range l.waves[:w+1] {
		next += size
	}
	for i := range l.items[next:] {
		if l.x.past.live(l.items[next+i].path) != nil {
			return nil
		}
	}
	d, err := setting(l.x, l.s, l.n.Loop.PauseBetween, "pause-between")
	if err != nil {
		return failed(l.path, steps.Classify(err))
	}
	if err := l.x.settleDisk(ctx); err != nil {
		return broken(l.path, err)
	}
	if err := l.x.pause(ctx, d); err != nil {
		return haltFor(err, l.path)
	}
	return nil
}

// wave runs items, at most so many at a time.
func (l *looping) wave(ctx context.Context, w int, batch []item) *halt {
	if c := l.n.Confirm; c != nil && c.Each == "batch" {
		begun := slices.ContainsFunc(batch, func(it item) bool { return l.x.past.live(it.path) != nil })
		if h := l.x.gate(ctx, l.s, l.n, l.path, fmt.Sprintf("[batch %d]", w), begun); h != nil {
			return h
		}
	}
	if l.parallel == 1 || l.x.dry != nil {
		for i := range batch {
			if l.one(ctx, &batch[i]); l.end != nil {
				return l.end
			}
		}
		return nil
	}
	ctx, stop := branch(ctx)
	defer stop(nil)
	slots := make(chan struct{}, l.parallel)
	var wg sync.WaitGroup
	for i := range batch {
		slots <- struct{}{}
		l.mu.Lock()
		over := l.end != nil
		l.mu.Unlock()
		if over {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if l.one(ctx, &batch[i]) {
				stop(errSibling)
			}
		})
	}
	wg.Wait()
	return l.end
}

// one runs an item and counts its failure; true: the loop is over.
func (l *looping) one(ctx context.Context, it *item) bool {
	h := l.item(ctx, it)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case h == nil:
		return l.end != nil
	case h.own() && h.decided == "":
		if l.failures++; l.failures > l.tolerated {
			break
		}
		if l.x.past.handledBy(it.path) != "" {
			return false
		}
		if h = l.x.handled(it.path, "max-failures"); h == nil {
			return false
		}
	}
	l.end = worse(l.end, h)
	return true
}

// item runs the node for one item.
func (l *looping) item(ctx context.Context, it *item) *halt {
	x, n := l.x, l.n
	if h := stopped(ctx, it.path); h != nil {
		return h
	}
	inner := newScope(l.s.frame, l.s, it.path+"/", l.names(it))
	span := x.acts.open(ctx, n, it.path)
	ctx = span.in(ctx)
	defer l.keep(inner, it)
	if why, open := x.past.rollback(it.path); open && !rollsItselfBack(n) {
		return x.finishItemRollback(ctx, inner, n, it.path, span, why)
	}
	h := x.past.rolledBack(it.path)
	rolledBack := h != nil && !rollsItselfBack(n)
	if !rolledBack {
		h = nil
		if x.past.handledBy(it.path) != "" || x.past.inForce(it.path) {
			h = x.past.failure(it.path)
		}
	}
	if h != nil {
		if broken := x.retraceOnce(ctx, inner, n, it.path); broken != nil {
			return broken
		}
		if rolledBack || n.OnFailure != "rollback-item" || x.past.handledBy(it.path) != "" {
			return h
		}
		return x.rollbackSpan(ctx, it.path, span, h, nil)
	}
	if c := n.Confirm; c != nil && c.Each == "item" {
		if h := x.asked(ctx, inner, n, it.path); h != nil {
			return h
		}
	}
	h = x.once(ctx, inner, n, it.path, false)
	x.doubts(inner, n, span.parent)
	if h.own() && n.OnFailure == "rollback-item" {
		return x.rollbackSpan(ctx, it.path, span, h, func(ctx context.Context) *halt { return x.retraceOnce(ctx, inner, n, it.path) })
	}
	return h
}

// keep has what is seen of an item from outside the loop, where somebody looks.
func (l *looping) keep(inner *scope, it *item) {
	if l.n.NeedItems {
		l.results[it.index] = l.itemResult(inner, it)
	}
}

func (l *looping) names(it *item) []named {
	if l.n.FanOut {
		return []named{{"item", it.value}, {"index", it.index}, {fanTarget + l.n.ID, it.key}}
	}
	return []named{{l.n.Loop.As, it.value}, {"index", it.index}}
}

// itemResult is what is seen of one item from outside the loop.
func (l *looping) itemResult(inner *scope, it *item) map[string]any {
	r := map[string]any{}
	results := inner.all()
	for id, child := range results {
		if id != l.n.ID {
			r[id] = child
		}
	}
	own := results[l.n.ID]
	if t := l.n.ItemType; t != nil {
		for name := range t.Fields {
			if _, there := r[name]; there {
				continue
			}
			if child := l.n.Unit.nodes[name]; child != nil && child != l.n {
				r[name] = nothing(child)
			} else {
				r[name] = nil
			}
		}
	}
	for name, v := range own {
		r[name] = v
	}
	if own == nil {
		r["status"] = statusSkipped
	}
	r["key"], r["item"] = it.key, it.value
	return r
}

func (l *looping) result() map[string]any {
	if !l.n.NeedItems {
		return map[string]any{"items": []any{}, "by": map[string]any{}}
	}
	items := make([]any, len(l.results))
	by := make(map[string]any, len(l.results))
	for i, r := range l.results {
		if r == nil {
			r = l.itemResult(newScope(l.s.frame, l.s, "", nil), &l.items[i])
		}
		items[i] = r
		by[l.items[i].key] = r
	}
	return map[string]any{"items": items, "by": by}
}

// afterBatch runs the steps that follow a wave.
func (l *looping) afterBatch(ctx context.Context, w int, batch []item) *halt {
	if len(l.n.AfterBatch) == 0 {
		return nil
	}
	return l.x.list(ctx, l.batchScope(w, batch), l.n.AfterBatch)
}

func (l *looping) batchScope(w int, batch []item) *scope {
	values := make([]any, len(batch))
	for i := range batch {
		values[i] = batch[i].value
	}
	return newScope(l.s.frame, l.s, fmt.Sprintf("%s[batch %d]/", l.path, w), []named{{"batch", map[string]any{"index": w, "items": values}}})
}

// waitAll polls all items of a fan-out together: one window over all of them. Where an
// earlier process had not seen the end of it, all are looked at again.
func (l *looping) waitAll(ctx context.Context) *halt {
	x := l.x
	all, h := l.waiters(ctx)
	if h != nil || len(all) == 0 {
		return h
	}
	limit, err := setting(x, l.s, l.n.Timeout, "timeout")
	if err != nil {
		return failed(l.path, steps.Classify(err))
	}
	if limit == 0 && !l.n.Timeout.Set {
		limit = defaultTimeout
	}
	attempt, err := setting(x, l.s, l.n.AttemptTimeout, "attempt-timeout")
	if err != nil {
		return failed(l.path, steps.Classify(err))
	}
	w, err := x.newWait(l.s, l.n, l.path)
	if err != nil {
		return failed(l.path, steps.Classify(err))
	}
	limited := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		limited, cancel = x.clock.WithTimeout(ctx, limit, errTimeout)
		defer cancel()
	}
	soft, done := softly(limited)
	defer done()
	if err := w.poll(soft, func(ctx context.Context) (sighting, error) { return w.observeAll(ctx, all, attempt) }); err != nil {
		return l.waitEnded(ctx, soft, err)
	}
	for _, a := range all {
		if failure := x.expect(a); failure != nil {
			return x.fail(a, failure)
		}
		if h := x.finish(a, statusOK); h != nil {
			return h
		}
		l.keep(a.s, a.item)
	}
	return nil
}

// waiters are the items that a wait over all of them is about: none where an earlier
// process has seen its end. An item whose when is false is skipped.
func (l *looping) waiters(ctx context.Context) ([]*act, *halt) {
	x := l.x
	over := x.past.finished(l.path)
	var all []*act
	for i := range l.items {
		it := &l.items[i]
		inner := newScope(l.s.frame, l.s, it.path+"/", l.names(it))
		if over {
			if h := x.recall(ctx, inner, l.n, it.path); h != nil {
				return nil, h
			}
			l.keep(inner, it)
			continue
		}
		if skipped, h := x.admit(ctx, inner, l.n, it.path, false); h != nil {
			return nil, h
		} else if skipped {
			l.keep(inner, it)
			continue
		}
		a, err := x.prepare(inner, l.n, it.path)
		if err != nil {
			return nil, x.refused(inner, l.n, it.path, steps.Classify(err))
		}
		a.attempt, a.item = 1, it
		all = append(all, a)
		if err := x.started(ctx, a, nil, false); err != nil {
			return nil, broken(it.path, err)
		}
	}
	return all, nil
}

// observeAll looks at all of them at the same time.
func (w *waiting) observeAll(ctx context.Context, all []*act, limit time.Duration) (sighting, error) {
	looks := make([]sighting, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, a := range all {
		wg.Go(func() { looks[i], errs[i] = w.observe(ctx, a, limit) })
	}
	wg.Wait()
	sum := sighting{holds: true, values: map[string]any{}}
	for i, one := range looks {
		if errs[i] != nil {
			return sighting{}, errs[i]
		}
		sum.holds = sum.holds && one.holds
		if one.passing != nil {
			sum.passing = one.passing
		}
		for _, d := range one.distances {
			d.Text = all[i].path + ": " + d.Text
			sum.distances = append(sum.distances, d)
		}
		for k, v := range one.values {
			sum.values[all[i].path+": "+k] = v
		}
	}
	return sum, nil
}

// waitEnded is a wait over all items that did not come true.
func (l *looping) waitEnded(outer, soft context.Context, err error) *halt {
	var dead *deadJournal
	if errors.As(err, &dead) {
		return broken(l.path, dead.err)
	}
	if h := stopped(outer, l.path); h != nil {
		return h
	}
	failure := l.x.masked(steps.Classify(err))
	if errors.Is(context.Cause(soft), errTimeout) {
		failure.Kind = "timeout"
	}
	return failed(l.path, failure)
}

// items is the list a loop goes over: as it was when it started, if an earlier process froze it.
func (x *run) items(s *scope, n *Node, path string) ([]item, error) {
	if n.FanOut {
		return s.targetItems(n, path), nil
	}
	frozen, had := x.past.frozen(path)
	if had && (n.Loop.OnChange == "" || x.past.finished(path)) {
		return thawItems(n, path, frozen), nil
	}
	items, err := x.evalItems(s, n, path)
	if err != nil {
		return nil, err
	}
	if had {
		return x.changed(n, path, frozen, items)
	}
	if n.Loop.Known || x.dry != nil {
		return items, nil
	}
	return items, x.freeze(path, items)
}

// pastItems are the items as earlier processes saw them.
func (x *run) pastItems(s *scope, n *Node, path string) ([]item, error) {
	if n.FanOut {
		return s.targetItems(n, path), nil
	}
	if frozen, had := x.past.frozen(path); had {
		return thawItems(n, path, frozen), nil
	}
	return x.evalItems(s, n, path)
}

func (s *scope) targetItems(n *Node, path string) []item {
	items := make([]item, len(n.Targets))
	for i, t := range n.Targets {
		var shown any = t.Name
		if b := s.frame.find(t.Name); b != nil {
			shown = b.shown
		}
		items[i] = item{index: i, key: t.Name, value: shown, path: itemPath(n, path, t.Name)}
	}
	return items
}

// freeze journals the items of a loop, so that a resume goes over the same ones.
func (x *run) freeze(path string, items []item) error {
	body := &LoopFrozen{Items: frozenItems(items)}
	if _, err := x.record(recLoopFrozen, path, body); err != nil {
		return &deadJournal{err}
	}
	return nil
}

func frozenItems(items []item) []FrozenItem {
	frozen := make([]FrozenItem, len(items))
	for i, it := range items {
		frozen[i] = FrozenItem{Key: it.key, Item: jsonable(it.value)}
	}
	return frozen
}

// changed is what on-change makes of a list that differs at a resume.
func (x *run) changed(n *Node, path string, frozen []FrozenItem, now []item) ([]item, error) {
	items := thawItems(n, path, frozen)
	had := map[string]bool{}
	for _, it := range items {
		had[it.key] = true
	}
	var added []item
	for _, it := range now {
		if !had[it.key] {
			it.index = len(items) + len(added)
			added = append(added, it)
		}
	}
	same := len(added) == 0 && len(now) == len(items)
	if len(added) > 0 && n.Loop.OnChange == "add" {
		items = append(items, added...)
		return items, x.freeze(path, items)
	}
	if same || n.Loop.OnChange == "add" {
		return items, nil
	}
	return nil, steps.Errorf("changed", "for-each: the list had %d items when the loop started, it has %d now (%d of them new), and on-change says stop", len(items), len(now), len(added))
}

// thawItems are items as they were written down.
func thawItems(n *Node, path string, frozen []FrozenItem) []item {
	items := make([]item, len(frozen))
	for i, f := range frozen {
		items[i] = item{index: i, key: f.Key, value: expression.Decode(n.Loop.ElemType, f.Item), path: itemPath(n, path, f.Key)}
	}
	return items
}

func (x *run) evalItems(s *scope, n *Node, path string) ([]item, error) {
	v, err := x.eval(s, n.Loop.Over)
	if err != nil {
		return nil, fmt.Errorf("for-each: %w", err)
	}
	return loopItems(n, path, v, func(it item) (any, error) {
		return x.eval(newScope(s.frame, s, "", []named{{n.Loop.As, it.value}, {"index", it.index}}), n.Loop.Key)
	})
}

// loopItems makes the items of a list or map, each with its key; key evaluates the
// author's own for one item. The plan uses it too, so that both name items alike.
func loopItems(n *Node, path string, v any, key func(item) (any, error)) ([]item, error) {
	var items []item
	switch v := v.(type) {
	case []any:
		items = make([]item, len(v))
		for i, e := range v {
			items[i] = item{index: i, value: e}
		}
	case map[string]any:
		for i, k := range sortedNames(v) {
			items = append(items, item{index: i, key: k, value: map[string]any{"key": k, "value": v[k]}})
		}
	case nil:
		return nil, errors.New("for-each: the list is null")
	default:
		return nil, fmt.Errorf("for-each: %v (%s) is neither a list nor a map", v, reflect.TypeOf(v))
	}
	seen := make(map[string]int, len(items))
	for i := range items {
		it := &items[i]
		if n.Loop.Key != nil {
			k, err := key(*it)
			if err != nil {
				return nil, fmt.Errorf("key of item %d: %w", i, err)
			}
			it.key = keyText(k)
		} else if _, named := v.(map[string]any); !named {
			it.key = keyText(it.value)
		}
		if before, twice := seen[it.key]; twice {
			return nil, fmt.Errorf("for-each: items %d and %d have the same key %q; give a key that tells them apart", before, i, it.key)
		}
		seen[it.key] = i
		it.path = itemPath(n, path, it.key)
	}
	return items, nil
}

// maxKey is how long the key of an item may be in paths.
const maxKey = 200

// keyText is a value as the name of an item: whole, or with a digest that tells it apart.
func keyText(v any) string {
	w, err := expression.Text(v)
	if err != nil {
		w = show(v)
	}
	w = strings.ToValidUTF8(w, "\uFFFD")
	if len(w) <= maxKey {
		return w
	}
	sum := sha256.Sum256([]byte(w))
	return fmt.Sprintf("%s…%x", strings.ToValidUTF8(w[:maxKey], ""), sum[:6])
}

// itemPath is the journal path of an item: move[slot=7], or versions[pika5] for a fan-out.
func itemPath(n *Node, path, key string) string {
	if n.FanOut {
		return path + "[" + key + "]"
	}
	return path + "[" + n.Loop.As + "=" + key + "]"
}
