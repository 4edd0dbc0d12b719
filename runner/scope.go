package runner

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"runbook/runner/expression"
	"runbook/schema"
)

// place is where an expression stands, and so what it may name.
type place struct {
	node *Node // whose field it is; nil: the file's own
	when moment
	item bool // the item of the node's own loop is in scope

	own   map[string]*expression.Type // outputs of the step itself, as plain names
	extra map[string]*expression.Type // error, batch, value
	only  bool                        // nothing but extra and functions

	noSteps string // why no step can be read here; empty: those that have run can

	secrets  bool   // may be read here
	noSecret string // why not, where an author might think so
	isText   bool   // a value becomes part of a text: null has none
}

func (p place) with(own map[string]*expression.Type, when moment) place {
	p.own, p.when, p.item = own, when, true
	return p
}

// names are what the nodes around an expression add to its scope: the item of each loop,
// batch after a batch, error in a rescue. The nearest wins.
func (p place) names() map[string]*expression.Type {
	var names map[string]*expression.Type
	add := func(name string, t *expression.Type) {
		if names == nil {
			names = map[string]*expression.Type{}
		}
		if names[name] == nil {
			names[name] = t
		}
	}
	within := p.item
	for n := p.node; n != nil; n = n.Parent {
		switch {
		case !within:
		case n.FanOut:
			add("item", n.elem())
			add("index", intType)
		case n.Loop != nil:
			add(n.Loop.As, n.Loop.ElemType)
			add("index", intType)
		}
		within = true
		switch n.Role {
		case InRescue:
			add("error", failureType)
			within = false
		case InAfterBatch:
			add("batch", batchType(n.Parent))
			within = false
		}
	}
	return names
}

// batchType is what steps after a batch see of it.
func batchType(loop *Node) *expression.Type {
	return object(map[string]*expression.Type{"index": intType, "items": listOf(loop.elem())})
}

// reading is a step that an expression names.
type reading struct {
	id      string
	node    *Node // nil: there is no such step
	sight   sight
	guarded bool // nullable, but the reader has looked at its status
}

// scope makes the scope of one expression. Of the steps it holds only those that the
// source names, so that a file of n steps costs O(n). A step that is unknown, cannot be
// read or is not understood can be anything here: that is one finding, and follows from
// the references of the compiled expression, which know the exact place.
//
// A lean scope leaves out whatever the source does not mention. It is enough to compile
// what is right; what is wrong wants suggestions, and so all names.
func (r *resolver) scope(p place, source string, readings []reading, nulls, lean bool) *expression.Scope {
	if p.only {
		return &expression.Scope{Vars: p.extra}
	}
	names := p.names()
	secrets := strings.Contains(source, "secrets")
	shared := len(readings) == 0 && p.extra == nil && names == nil && !secrets
	if shared {
		if s := r.shared[addressOf(p.own)]; s != nil {
			return s
		}
	}
	lean = lean && !shared
	vars := make(map[string]*expression.Type, 8)
	add := func(from map[string]*expression.Type) {
		for name, t := range from {
			if !lean || strings.Contains(source, name) {
				vars[name] = t
			}
		}
	}
	add(r.base)
	if secrets {
		vars["secrets"] = r.secrets
	}
	add(names)
	add(p.extra)
	add(p.own)
	if len(readings) > 0 && r.base["steps"] != nil {
		steps := make(map[string]*expression.Type, len(readings))
		for i := range readings {
			steps[readings[i].id] = r.typeOf(&readings[i], nulls)
		}
		vars["steps"] = object(steps)
	}
	s := &expression.Scope{Vars: vars}
	if shared {
		if r.shared == nil {
			r.shared = map[uintptr]*expression.Scope{}
		}
		r.shared[addressOf(p.own)] = s
	}
	return s
}

// addressOf tells sets of outputs apart: all steps of a kind share one.
func addressOf(own map[string]*expression.Type) uintptr { return reflect.ValueOf(own).Pointer() }

// compiled is an expression under what its meaning depends on. Long runbooks say the same
// of many steps, and a program says nothing of the place it stands in.
type compiled struct {
	source string
	scope  *expression.Scope
	want   *expression.Type
	mode   expression.Mode
}

func (r *resolver) typeOf(read *reading, nulls bool) *expression.Type {
	n := read.node
	if n == nil || n.broken || n.OutType == nil || read.sight.rule != "" {
		return anyType
	}
	if !nulls || !read.sight.nullable || read.guarded {
		return n.OutType
	}
	return r.nullable(n.OutType)
}

// nullable is mayBeNull, made once for each type.
func (r *resolver) nullable(t *expression.Type) *expression.Type {
	null := r.nulls[t]
	if null == nil {
		null = mayBeNull(t)
		r.nulls[t] = null
	}
	return null
}

// readings finds the steps that a source names, without parsing it: too many do no harm.
func (r *resolver) readings(p place, source string) []reading {
	var all []reading
	for rest := source; ; {
		i := strings.Index(rest, "steps")
		if i < 0 {
			return all
		}
		rest = rest[i+len("steps"):]
		id := stepName(rest)
		if id == "" || slices.ContainsFunc(all, func(read reading) bool { return read.id == id }) {
			continue
		}
		read := reading{id: id, node: r.u.nodes[id]}
		if read.node != nil {
			read.sight = p.look(read.node)
			if read.sight.rule == "" && read.sight.nullable {
				read.guarded = p.node.guards(read.sight)
			}
		}
		all = append(all, read)
	}
}

// look tells how a step appears from the place.
func (p place) look(to *Node) sight {
	if p.noSteps != "" {
		return blind("read-before-run", "", "%s", p.noSteps)
	}
	return look(to, p.node, p.when)
}

// stepName is the id behind the word steps: .id, ?.id or ["id"].
func stepName(rest string) string {
	rest = strings.TrimLeft(rest, " \t\n")
	if inner, ok := strings.CutPrefix(strings.TrimPrefix(rest, "?."), "["); ok {
		inner = strings.TrimLeft(inner, " \t\n")
		if inner == "" || inner[0] != '"' && inner[0] != '\'' {
			return ""
		}
		id, _, _ := strings.Cut(inner[1:], inner[:1])
		return id
	}
	rest, ok := strings.CutPrefix(strings.TrimPrefix(rest, "?"), ".")
	if !ok {
		return ""
	}
	rest = strings.TrimLeft(rest, " \t\n")
	end := 0
	for end < len(rest) && isNameByte(rest[end:]) {
		end++
	}
	return rest[:end]
}

// compile makes a program of an expression; nil where something is wrong with it, which
// is one finding.
func (r *resolver) compile(e *schema.Expr, p place, want *expression.Type, mode expression.Mode) *expression.Program {
	if e == nil || e.Source == "" {
		return nil // reported where it was read
	}
	if p.when != before && p.node != nil && p.node.broken {
		r.mention(e.Source) // it may be about the outputs of a kind that nobody knows
		return nil
	}
	readings := r.readings(p, e.Source)
	key := compiled{e.Source, r.scope(p, e.Source, readings, true, true), want, mode}
	if program := r.programs[key]; program != nil {
		if !r.check(e, p, program, readings) {
			return nil
		}
		return program
	}
	program, failed := expression.Compile(e.Source, key.scope, want, mode)
	if failed == nil {
		if r.shared[addressOf(p.own)] == key.scope {
			r.programs[key] = program
		}
		if !r.check(e, p, program, readings) {
			return nil
		}
		return program
	}
	r.mention(e.Source)
	if _, full := expression.Compile(e.Source, r.scope(p, e.Source, readings, true, false), want, mode); full != nil {
		failed = full // with suggestions
	}
	if slices.ContainsFunc(readings, func(read reading) bool { return read.sight.nullable && !read.guarded }) {
		// Perhaps all that is wrong is that nobody reckoned with a step that did not run.
		if p2, f2 := expression.Compile(e.Source, r.scope(p, e.Source, readings, false, false), want, mode); f2 == nil && !r.check(e, p, p2, readings) {
			return nil
		}
	}
	scope := r.scope(p, e.Source, readings, false, false)
	forgiven := map[string]bool{}
	for range 8 { // the next mistakes of the same expression, as if the first were none
		r.failed(e, p, failed, readings)
		if failed.Rule == expression.RuleUnknownName {
			forgiven[string([]rune(e.Source)[failed.Offset:failed.End])] = true
		}
		if scope = forgive(scope, e.Source, failed); scope == nil {
			return nil
		}
		if program, failed = expression.Compile(e.Source, scope, want, mode); failed == nil {
			program.Refs = slices.DeleteFunc(program.Refs, func(ref expression.Ref) bool { return forgiven[ref.Path[0]] })
			r.check(e, p, program, readings)
			return nil
		}
	}
	return nil
}

// forgive gives a scope in which a name or field that was wrong can be anything, so that
// what else is wrong with the expression is found too; nil where that does not help.
func forgive(scope *expression.Scope, source string, err *expression.Error) *expression.Scope {
	if err.Rule != expression.RuleUnknownName && err.Rule != expression.RuleUnknownField && err.Rule != "inside-loop" {
		return nil
	}
	runes := []rune(source)
	name, lead := string(runes[err.Offset:err.End]), string(runes[:err.Offset])
	vars := maps.Clone(scope.Vars)
	if err.Rule == expression.RuleUnknownName {
		vars[name] = anyType
		return &expression.Scope{Vars: vars}
	}
	end := strings.TrimRight(strings.TrimRight(lead, "."), "?")
	start := len(end)
	for start > 0 && (isNameByte(end[start-1:]) || end[start-1] == '.') {
		start--
	}
	path := strings.Split(end[start:], ".")
	t := vars[path[0]]
	if t == nil || t.Kind != expression.Object || len(path) > 2 {
		return nil
	}
	if len(path) == 2 {
		inner := t.Fields[path[1]]
		if inner == nil || inner.Kind != expression.Object {
			return nil
		}
		vars[path[0]] = withField(t, path[1], withField(inner, name, anyType))
	} else {
		vars[path[0]] = withField(t, name, anyType)
	}
	return &expression.Scope{Vars: vars}
}

func withField(t *expression.Type, name string, field *expression.Type) *expression.Type {
	fields := maps.Clone(t.Fields)
	if fields == nil {
		fields = map[string]*expression.Type{}
	}
	fields[name] = field
	return object(fields)
}

// failed reports why an expression does not compile.
func (r *resolver) failed(e *schema.Expr, p place, err *expression.Error, readings []reading) {
	if err.Rule == expression.RuleSyntax {
		if f, ok := e.CommentFinding(); ok {
			r.findings = append(r.findings, f)
			return
		}
	}
	source := []rune(e.Source)
	name, lead := string(source[err.Offset:err.End]), string(source[:err.Offset])
	switch err.Rule {
	case expression.RuleUnknownName:
		r.explainName(err, p, name)
	case expression.RuleUnknownField:
		r.explainField(err, readings, name, strings.TrimRight(strings.TrimRight(lead, "."), "?"))
	}
	r.findings = append(r.findings, e.Finding(schema.Error, err.Rule, err.Offset, err.End, err.Message, err.Suggestion))
}

// elsewhere says where the names belong that only some places have.
var elsewhere = map[string]string{
	"batch":   "batch is there in the steps of after-batch alone",
	"error":   "error is there in rescue and in retry.if alone",
	"item":    "item is there inside a loop, and not in what is asked once for all items (for-each, require, confirm)",
	"index":   "index is there inside a loop, and not in what is asked once for all items (for-each, require, confirm)",
	"value":   "value is there in the check of an input alone",
	"secrets": "secrets are there in targets and with alone",
	"plan":    "plan is there in policy alone",
	"steps":   "steps are not there yet: this is evaluated before the first one runs",
	"run":     "run is not there yet: this is part of the plan, which is the same for every run",
	"targets": "targets are not there yet: they are evaluated after this",
}

// explainName says of a name that exists elsewhere, where.
func (r *resolver) explainName(err *expression.Error, p place, name string) {
	if p.only && p.extra["plan"] != nil && slices.Contains([]string{"inputs", "targets", "vars", "steps", "run"}, name) {
		err.Message, err.Suggestion = "a policy file is asked of any runbook, and sees its plan alone", ""
		if p.extra["plan"].Fields[name] != nil {
			err.Suggestion = "plan." + name
		}
		return
	}
	if words := elsewhere[name]; words != "" {
		err.Message, err.Suggestion = words, ""
		return
	}
	n := p.node
	if n == nil {
		return
	}
	_, own := r.ownNames(n)[name]
	switch {
	case own && p.when == before:
		err.Message, err.Suggestion = name+" is an output of this step, which has not run yet where this is evaluated", ""
	case n.Loop != nil && n.Loop.As == name:
		err.Message, err.Suggestion = name+" is there for each item, and this is asked once, before the first", ""
	case r.u.nodes[name] != nil:
		err.Message, err.Suggestion = "a step is read through steps: steps."+name, "steps."+name
	case r.inputs[name] != nil:
		err.Message, err.Suggestion = "an input is read through inputs: inputs."+name, "inputs."+name
	case r.targets[name] != nil:
		err.Message, err.Suggestion = "a target is read through targets: targets."+name, "targets."+name
	}
}

// ownNames are the outputs of the kind or runbook that a step uses.
func (r *resolver) ownNames(n *Node) map[string]*expression.Type {
	switch {
	case n.Kind != nil:
		return r.outFields(n.Kind.Out)
	case n.Sub != nil && n.Sub.OutType != nil:
		return n.Sub.OutType.Fields
	}
	return nil
}

// explainField says more of a field that is not there.
func (r *resolver) explainField(err *expression.Error, readings []reading, name, of string) {
	if of == "vars" {
		for i := range r.book.Vars {
			if r.book.Vars[i].Key.Value == name {
				err.Message, err.Suggestion = "vars are evaluated in order, and "+name+" stands below", ""
			}
		}
	}
	for i := range readings {
		n := readings[i].node
		if n == nil || of != "steps."+n.ID || !n.repeats() || n.ItemType == nil || n.ItemType.Fields[name] == nil {
			continue
		}
		err.Rule, err.Suggestion = "inside-loop", "items"
		err.Message = n.ID + " runs once for each item: its outputs are in steps." + n.ID + ".items, or steps." + n.ID + ".by under the item's key"
	}
}

// check judges what a compiled expression reads: each wrong name is one finding.
func (r *resolver) check(e *schema.Expr, p place, program *expression.Program, readings []reading) bool {
	ok := true
	wrong := func(ref expression.Ref, i int, rule, message, suggestion string) {
		ok = false
		from := ref.Offsets[i]
		to := from + utf8.RuneCountInString(ref.Path[i])
		r.findings = append(r.findings, e.Finding(schema.Error, rule, from, to, message, suggestion))
	}
	for _, ref := range program.Refs {
		if _, own := p.own[ref.Path[0]]; own {
			continue
		}
		switch ref.Path[0] {
		case "inputs":
			if len(ref.Path) == 1 {
				r.mention("inputs")
				continue
			}
			r.used[ref.Path[1]] = true
			if in := r.inputs[ref.Path[1]]; in != nil && in.Kind == "secret" && !p.secrets {
				wrong(ref, 1, "secret-scope", "input "+in.Name+" is a secret: "+p.secretWords(), "")
			}
		case "secrets":
			switch {
			case !p.secrets:
				wrong(ref, 0, "secret-scope", "secrets: "+p.secretWords(), "")
			case len(ref.Path) == 1:
				wrong(ref, 0, "secret-scope", "a secret is read by its name: secrets.NAME", "")
			}
		case "steps":
			if len(ref.Path) == 1 {
				wrong(ref, 0, "unknown-step", "a step is read by its id, which stands in the expression: steps.ID", "")
				continue
			}
			i := slices.IndexFunc(readings, func(read reading) bool { return read.id == ref.Path[1] })
			if i < 0 {
				continue
			}
			read := &readings[i]
			switch {
			case read.node == nil:
				near, _ := schema.Nearest(read.id, r.ids())
				wrong(ref, 1, "unknown-step", "there is no step "+read.id, near)
			case read.sight.rule != "":
				wrong(ref, 1, read.sight.rule, read.sight.message, read.sight.suggestion)
			case len(ref.Path) == 2:
				read.node.NeedItems = true
			default:
				field := ref.Path[2]
				if read.node.repeats() && (field == "items" || field == "by") {
					read.node.NeedItems = true
				}
				if read.sight.nullable && !read.guarded && !ref.Guarded && !alwaysThere(field) {
					wrong(ref, 2, "may-not-have-run", "step "+read.id+" may not have run ("+read.sight.because+"), so "+field+
						" may be null: use ?. or ??, or a when of your own on its status", "steps."+read.id+"?."+field)
				}
			}
		}
	}
	return ok
}

func (p place) secretWords() string {
	if p.noSecret != "" {
		return p.noSecret
	}
	return "they can be read in targets and with alone, since everything else is journaled or shown"
}

// mention marks the inputs that a source names, where it could not be compiled: they are used.
func (r *resolver) mention(source string) {
	for rest := source; ; {
		i := strings.Index(rest, "inputs")
		if i < 0 {
			return
		}
		rest = rest[i+len("inputs"):]
		if name := stepName(rest); name != "" {
			r.used[name] = true
			continue
		}
		for name := range r.inputs { // computed, or all of them
			r.used[name] = true
		}
	}
}

// ids are those of all steps of the file, for suggestions.
func (r *resolver) ids() []string {
	if r.sorted == nil {
		r.sorted = slices.Sorted(maps.Keys(r.u.nodes))
	}
	return r.sorted
}
