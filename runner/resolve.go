package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"runbook/runner/expression"
	"runbook/schema"
	"runbook/steps"
)

// LoadOptions are what a runbook is bound to.
type LoadOptions struct {
	Catalog *Catalog
	// ReadFile reads the runbook and its sub-runbooks; nil: os.ReadFile. A resume gives
	// the frozen sources instead.
	ReadFile func(path string) ([]byte, error)
	// Inventory: its targets replace the runbook's of that name whole, its inputs are values.
	Inventory *schema.Inventory
	// Alone: runbooks used as steps are not read, and nothing is said about what they take
	// and give. Such a program can be shown, and neither planned nor run.
	Alone bool
}

// Load reads a runbook with its sub-runbooks, binds it and checks it; no target is
// contacted. All findings of all files come in one run, sorted. The Program is nil where
// one of them is an error, and then only there.
func Load(path string, o LoadOptions) (*Program, []schema.Finding) {
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	l := &loader{o: o, catalog: o.Catalog, units: map[string]*Unit{}, outputs: map[reflect.Type]map[string]*expression.Type{}, keys: map[reflect.Type][]field{}, programs: map[compiled]*expression.Program{},
		sealed: map[uintptr]*expression.Type{}, nulls: map[*expression.Type]*expression.Type{}}
	text, err := o.ReadFile(path)
	if err != nil {
		return nil, []schema.Finding{{Path: path, Line: 1, Column: 1, EndLine: 1, EndColumn: 1, Severity: schema.Error, Rule: "file", Message: reason(err), Suggestion: instead(path, err)}}
	}
	root := l.unit(path, text, "runbook")
	p := &Program{Root: root, Catalog: o.Catalog}
	if !schema.Failed(l.findings) {
		l.unusedWaivers(p)
	}
	findings := onePerPlace(schema.Sort(l.findings))
	if schema.Failed(findings) {
		return nil, findings
	}
	if inv := o.Inventory; inv != nil && len(inv.Source) > 0 {
		l.sources = append(l.sources, source(inv.Path, "inventory", inv.Source))
	}
	slices.SortStableFunc(l.sources[1:], func(a, b Source) int { return strings.Compare(a.Path, b.Path) })
	p.Sources = l.sources
	return p, findings
}

func reason(err error) string {
	if e, ok := err.(*os.PathError); ok {
		return fmt.Sprintf("cannot be read: %v", e.Err)
	}
	return fmt.Sprintf("cannot be read: %v", err)
}

// instead is the file that may be meant by one that cannot be read.
func instead(path string, err error) string {
	dir, base := filepath.Split(path)
	if errors.Is(err, syscall.EISDIR) {
		dir, base = path, ""
	} else if !errors.Is(err, os.ErrNotExist) {
		return ""
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	var books []string
	for _, f := range files {
		if !strings.HasSuffix(f, ".sandbox.yaml") {
			books = append(books, filepath.Base(f))
		}
	}
	if near, ok := schema.Nearest(base, books); ok {
		return filepath.Join(dir, near)
	}
	if base == "" && len(books) > 0 {
		return "a runbook is one file, such as " + filepath.Join(dir, books[0])
	}
	return ""
}

// onePerPlace keeps one error of those that stand at one place: what is wrong with how a
// value is written comes before what is wrong with what it would mean.
func onePerPlace(findings []schema.Finding) []schema.Finding {
	type place struct {
		path         string
		line, column int
	}
	at := map[place]int{}
	kept := findings[:0]
	for _, f := range findings {
		if f.Severity != schema.Error {
			kept = append(kept, f)
			continue
		}
		p := place{f.Path, f.Line, f.Column}
		i, twice := at[p]
		switch {
		case !twice:
			at[p] = len(kept)
			kept = append(kept, f)
		case kept[i].Rule == "wrong-type":
			kept[i] = f
		}
	}
	return kept
}

func source(path, role string, text []byte) Source {
	sum := sha256.Sum256(text)
	return Source{Path: path, Role: role, SHA256: hex.EncodeToString(sum[:]), Text: string(text)}
}

// loader reads files: each once, however often it is used.
type loader struct {
	o        LoadOptions
	catalog  *Catalog
	units    map[string]*Unit
	loading  []string // files being read, the runbook first: a use of one of them is a cycle
	findings []schema.Finding
	sources  []Source

	outputs  map[reflect.Type]map[string]*expression.Type
	keys     map[reflect.Type][]field
	programs map[compiled]*expression.Program
	sealed   map[uintptr]*expression.Type // what later steps see, by the address of the outputs it is made of
	nulls    map[*expression.Type]*expression.Type
}

// resolver binds one file.
type resolver struct {
	*loader
	u        *Unit
	book     *schema.Runbook
	path     string // that findings name
	sub      bool   // used as a step
	readable bool   // the schema found nothing wrong, so that nothing is missing

	inputs  map[string]*Input
	targets map[string]*Target
	secrets *expression.Type
	base    map[string]*expression.Type   // what every expression sees by now
	shared  map[uintptr]*expression.Scope // of base and the outputs of one kind
	used    map[string]bool               // inputs that something reads
	sorted  []string                      // ids
}

func (l *loader) unit(path string, text []byte, role string) *Unit {
	key := filepath.Clean(path)
	l.sources = append(l.sources, source(path, role, text))
	book, findings := schema.Parse(path, text)
	l.findings = append(l.findings, findings...)
	u := &Unit{Book: book, nodes: map[string]*Node{}, OnFailure: book.OnFailure.Or("stop")}
	l.units[key] = u
	if len(book.Steps) == 0 && schema.Failed(findings) { // not a runbook that could be read
		return u
	}
	l.loading = append(l.loading, key)
	r := &resolver{loader: l, u: u, book: book, path: path, sub: role == "sub-runbook", readable: !schema.Failed(findings),
		inputs: map[string]*Input{}, targets: map[string]*Target{}, base: map[string]*expression.Type{}, used: map[string]bool{}}
	r.resolve()
	l.loading = l.loading[:len(l.loading)-1]
	return u
}

// see adds what every expression sees from now on.
func (r *resolver) see(name string, t *expression.Type) {
	r.base[name] = t
	r.shared = nil
}

// resolve binds a file from its top to its end: what stands above may be named below.
func (r *resolver) resolve() {
	r.declareInputs()
	secrets := map[string]*expression.Type{}
	for _, e := range r.book.Secrets {
		r.u.Secrets = append(r.u.Secrets, &Secret{Name: e.Key.Value, Decl: &e.Value})
		secrets[e.Key.Value] = stringType
	}
	r.secrets = object(secrets)
	r.declareVars()
	r.declareTargets()
	r.file()
	r.ownPolicies()
	r.see("run", runType)
	r.see("steps", object(nil))

	r.u.Steps = r.build(r.book.Steps, nil, InSteps)
	r.u.Finally = r.build(r.book.Finally, nil, InFinally)
	for _, n := range r.u.Steps {
		r.step(n)
	}
	for _, n := range r.u.Finally {
		r.step(n)
	}
	fields := map[string]*expression.Type{}
	r.u.Outputs = r.namedOutputs(r.book.Outputs, place{when: after}, fields)
	r.u.OutType = object(fields)
	r.runGuards()
	r.checkUnit()
}

// declareInputs binds the inputs, and checks what their declarations say of each other.
func (r *resolver) declareInputs() {
	fields := map[string]*expression.Type{}
	for i := range r.book.Inputs {
		name, d := r.book.Inputs[i].Key.Value, &r.book.Inputs[i].Value
		in := &Input{Name: name, Decl: d, Kind: d.Type.Value, Required: d.Default == nil, Type: typeOfInput(d)}
		if d.Check != nil {
			if c := r.compile(d.Check, place{only: true, extra: map[string]*expression.Type{"value": in.Type}}, boolType, expression.Plain); c != nil {
				in.Check = c
			}
		}
		r.checkInput(in)
		fields[name] = in.Type
		r.inputs[name] = in
		r.u.Inputs = append(r.u.Inputs, in)
	}
	r.see("inputs", object(fields))
}

// declareVars binds the vars in order: each sees those before it.
func (r *resolver) declareVars() {
	fields := map[string]*expression.Type{}
	r.see("vars", object(fields))
	for i := range r.book.Vars {
		v := &Var{Name: r.book.Vars[i].Key.Value}
		v.Value = r.value(&r.book.Vars[i].Value, place{isText: true}, nil)
		v.Type = v.Value.Type
		fields[v.Name] = v.Type
		r.u.Vars = append(r.u.Vars, v)
	}
}

// declareTargets binds the targets; those of an inventory replace the runbook's of that name.
func (r *resolver) declareTargets() {
	type declared struct {
		name, path string
		decl       *schema.Target
	}
	var all []declared
	place := map[string]int{}
	for i := range r.book.Targets {
		e := &r.book.Targets[i]
		place[e.Key.Value] = len(all)
		all = append(all, declared{e.Key.Value, r.path, &e.Value})
	}
	if inv := r.o.Inventory; inv != nil && !r.sub {
		for i := range inv.Targets {
			e := &inv.Targets[i]
			d := declared{e.Key.Value, inv.Path, &e.Value}
			if at, ok := place[d.name]; ok {
				all[at] = d
				continue
			}
			all = append(all, d)
		}
	}
	fields := map[string]*expression.Type{}
	own := r.path
	for _, d := range all {
		r.path = d.path
		t := r.declareTarget(d.name, d.decl)
		r.u.Targets = append(r.u.Targets, t)
		r.targets[d.name] = t
		fields[d.name] = t.Type
	}
	r.path = own
	r.see("targets", object(fields))
}

func (r *resolver) declareTarget(name string, d *schema.Target) *Target {
	t := &Target{Name: name, Decl: d}
	p := place{secrets: true}
	facts := &Template{Map: make([]TemplateEntry, 0, len(d.Facts)), At: d.Span}
	types := map[string]*expression.Type{}
	for i := range d.Facts {
		v := r.value(&d.Facts[i].Value, place{noSecret: "what stands under facts is shown"}, nil)
		facts.Map = append(facts.Map, TemplateEntry{d.Facts[i].Key.Value, v})
		types[d.Facts[i].Key.Value] = v.Type
	}
	facts.Type = object(types)
	t.Facts = facts.seal()
	kind := d.Kind.Value
	t.Kind = r.targetKind(d.Kind)
	if t.Kind == nil {
		kind = ""
		for i := range d.Config {
			r.value(&d.Config[i].Value, p, nil)
		}
	} else {
		t.Config = r.config(d.Config, t.Kind, p, d.Kind.Span)
	}
	t.Type = targetType(kind, facts.Type)
	return t
}

// targetKind finds a kind of target; nil where it is not known, which is a finding.
func (r *resolver) targetKind(kind schema.Leaf[string]) *steps.TargetDefinition {
	if !kind.Set || kind.Value == "" {
		return nil // the schema asks for it
	}
	def := r.catalog.Targets[kind.Value]
	if def == nil {
		names := make([]string, 0, len(r.catalog.Targets))
		for name := range r.catalog.Targets {
			names = append(names, name)
		}
		slices.Sort(names)
		near, _ := schema.Nearest(kind.Value, names)
		r.wrong(kind.Span, "unknown-target-kind", near, "there is no kind of target %s: there are %s", kind.Value, strings.Join(names, ", "))
	}
	return def
}

// config compiles what a target declares beside its kind.
func (r *resolver) config(entries schema.Map[schema.Value], def *steps.TargetDefinition, p place, at schema.Span) *Template {
	before := len(r.findings)
	t := r.record(entries, r.fields(def.Config), recordOf{
		place: func(string) place { return p }, missing: at, at: at, noun: "a target of kind " + def.Name, rule: "unknown-key", need: "missing-key",
	})
	if schema.Failed(r.findings[before:]) {
		return t
	}
	cfg, unknown := bound(t, def.Config)
	r.problems(def.Valid(cfg, func(field string) bool { return unknown[field] }), entries, unknown, at)
	return t
}

// problems are what a kind finds wrong with inputs that are known already.
func (r *resolver) problems(problems []steps.Problem, entries schema.Map[schema.Value], unknown map[string]bool, at schema.Span) {
	for _, p := range problems {
		if unknown[p.Input] {
			continue
		}
		span := at
		if v, ok := entries.Get(p.Input); ok {
			span = v.Span
		}
		r.wrong(span, "invalid-input", p.Suggestion, "%s", p.Message)
	}
}

// fields are the keys that a struct declares, read once for all steps of a kind.
func (l *loader) fields(t reflect.Type) []field {
	f, ok := l.keys[t]
	if !ok {
		f = fieldsOf(t)
		l.keys[t] = f
	}
	return f
}

// outFields are the outputs of a kind, one set of types for all its steps.
func (l *loader) outFields(t reflect.Type) map[string]*expression.Type {
	f, ok := l.outputs[t]
	if !ok {
		f = expression.TypeOf(t).Fields
		l.outputs[t] = f
	}
	return f
}

// isPath tells a runbook used as a step from a kind.
func isPath(uses string) bool {
	return strings.ContainsRune(uses, '/') || strings.HasSuffix(uses, ".yaml") || strings.HasSuffix(uses, ".yml")
}

// call finds the runbook that a step uses; nil where there is none, which is a finding.
func (r *resolver) call(uses schema.Leaf[string]) *Unit {
	if r.o.Alone {
		return nil
	}
	path := uses.Value
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(r.path), path)
	}
	key := filepath.Clean(path)
	if i := slices.Index(r.loading, key); i >= 0 {
		chain := append(slices.Clone(r.loading[i:]), key)
		circle := slices.Sorted(slices.Values(r.loading[i:]))
		for i := range chain {
			chain[i] = filepath.ToSlash(relative(r.loading[0], chain[i]))
		}
		r.wrong(uses.Span, "cycle", "", "runbooks use each other in a circle: %s", strings.Join(chain, " → "))
		r.findings[len(r.findings)-1].Cause = "cycle " + strings.Join(circle, "\n")
		return nil
	}
	if u, ok := r.units[key]; ok {
		return u
	}
	text, err := r.o.ReadFile(path)
	if err != nil {
		r.wrong(uses.Span, "unknown-file", "", "the runbook %s %s", uses.Value, reason(err))
		return nil
	}
	return r.unit(path, text, "sub-runbook")
}

// relative names a file as seen from the folder of the runbook.
func relative(root, path string) string {
	if rel, err := filepath.Rel(filepath.Dir(root), path); err == nil {
		return rel
	}
	return path
}
