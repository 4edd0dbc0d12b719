package runner

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"runbook/runner/expression"
	"runbook/schema"
)

// GivenInputs are the values given from outside, by where they come from. The earlier
// field wins: what is nearest to the person who starts the run.
type GivenInputs struct {
	Flags []string // name=value, in order; of two for one name the last counts
	// File is a YAML map of names to values (--inputs).
	File FileText
	// Inventory is an inventory file, whose inputs count. Zero: the one among the program's sources.
	Inventory FileText
	// World has the inputs that a sandbox's world file gives; over the defaults alone.
	World     map[string]any
	WorldPath string
}

// FileText is a file that was read.
type FileText struct {
	Path string
	Text []byte // nil: none
}

// Inputs are the values of a runbook's inputs.
type Inputs struct {
	// Values by name, as expressions see them: what expression.Value gives. An input of
	// type target has the target's name, one of type secret is not here.
	Values map[string]any
	// Origins says where each value comes from: flag, file, inventory, sandbox or default.
	Origins map[string]string
}

// SecretNames are the inputs of type secret, which are given from secrets alone.
func (p *Program) SecretNames() []string {
	var names []string
	for _, in := range p.Root.Inputs {
		if in.Kind == "secret" {
			names = append(names, in.Name)
		}
	}
	return names
}

// givenValue is one value from outside before it is read as its input's type.
type givenValue struct {
	origin string
	text   string       // -i: read by the declared type
	value  schema.Value // from a file
	plain  any          // from a sandbox's world: plain data
	path   string
	span   schema.Span
	isText bool
}

// BindInputs reads the inputs of a runbook: -i over the inputs file over the inventory
// over the sandbox's world over the defaults. The findings are about values: of a wrong
// type, unknown, missing (all of them), or refused by enum, pattern, min, max or check.
// The Inputs are whole only where no finding is an error. The error is one of a file
// that cannot be had.
func (p *Program) BindInputs(given GivenInputs) (*Inputs, []schema.Finding, error) {
	b := inputBinder{program: p, unit: p.Root, given: map[string]givenValue{}}
	for _, name := range sortedNames(given.World) {
		b.add(name, givenValue{origin: "sandbox", plain: given.World[name], path: given.WorldPath}, schema.Span{})
	}
	if given.Inventory.Text == nil {
		for _, s := range p.Sources {
			if s.Role == "inventory" {
				given.Inventory = FileText{s.Path, []byte(s.Text)}
			}
		}
	}
	if given.Inventory.Text != nil {
		inv, findings := schema.ParseInventory(given.Inventory.Path, given.Inventory.Text)
		if schema.Failed(findings) {
			b.findings = append(b.findings, findings...)
		} else if inv != nil {
			b.file("inventory", given.Inventory.Path, inv.Inputs)
		}
	}
	if given.File.Text != nil {
		values, findings := parseInputsFile(given.File.Path, given.File.Text)
		b.findings = append(b.findings, findings...)
		b.file("file", given.File.Path, values)
	}
	for _, flag := range given.Flags {
		name, text, ok := strings.Cut(flag, "=")
		if !ok || name == "" {
			hint := "the runbook has no inputs"
			if names := b.unit.inputNames(); len(names) > 0 {
				hint = "the inputs are " + some(names)
				if near, ok := schema.Nearest(name, names); ok {
					hint = "-i " + near + "=VALUE"
				}
			}
			return nil, nil, &UsageError{Err: fmt.Errorf("-i %s: write it as name=value", flag), Hint: hint}
		}
		b.add(name, givenValue{origin: "flag", text: text, isText: true, path: "-i " + name}, schema.Span{}) // a flag has no lines
	}
	in := b.bind()
	return in, schema.Sort(b.findings), nil
}

type inputBinder struct {
	program  *Program
	unit     *Unit
	given    map[string]givenValue
	findings []schema.Finding
}

func (b *inputBinder) file(origin, path string, values schema.Map[schema.Value]) {
	for _, e := range values {
		b.add(e.Key.Value, givenValue{origin: origin, value: e.Value, path: path, span: e.Value.Span}, e.Key.Span)
	}
}

// add takes a value; a later one replaces it.
func (b *inputBinder) add(name string, v givenValue, key schema.Span) {
	in := b.unit.input(name)
	switch {
	case in == nil:
		near, ok := schema.Nearest(name, b.unit.inputNames())
		if names := b.unit.inputNames(); !ok && len(names) > 0 {
			near = "the inputs are " + some(names)
		}
		message := fmt.Sprintf("the runbook has no input %q", name)
		if len(b.unit.Inputs) == 0 {
			message = fmt.Sprintf("the runbook has no inputs, and so none named %q", name)
		}
		b.report(v.path, key, "unknown-input", message, near)
	case in.Kind == "secret":
		b.report(v.path, v.span, "secret-input", fmt.Sprintf("input %s is a secret: it is given from secrets alone, so that it stands in no shell history, file or journal", name), "")
	default:
		b.given[name] = v
	}
}

func (b *inputBinder) report(path string, span schema.Span, rule, message, suggestion string) {
	b.findings = append(b.findings, schema.Finding{
		Path: path, Line: span.Start.Line, Column: span.Start.Column, EndLine: span.End.Line, EndColumn: span.End.Column,
		Severity: schema.Error, Rule: rule, Message: message, Suggestion: suggestion,
	})
}

func (b *inputBinder) bind() *Inputs {
	bound := &Inputs{Values: map[string]any{}, Origins: map[string]string{}}
	for _, in := range b.unit.Inputs {
		v, ok := b.given[in.Name]
		switch {
		case in.Kind == "secret":
		case ok:
			value, err := in.read(v)
			if err == nil {
				err = b.accept(in, value)
			}
			if err != nil {
				rule, message, suggestion := "input", err.Error(), ""
				if m, ok := errors.AsType[*schema.MismatchError](err); ok {
					rule, suggestion = "input-type", m.Suggestion
				} else if n, ok := errors.AsType[*inputError](err); ok {
					suggestion = n.suggestion
				}
				b.report(v.path, v.span, rule, fmt.Sprintf("input %s: %s", in.Name, message), suggestion)
				continue
			}
			bound.Values[in.Name], bound.Origins[in.Name] = value, v.origin
		case in.Required:
			b.report(b.unit.Book.Path, b.unit.inputSpan(in.Name), "missing-input",
				fmt.Sprintf("input %s is required%s", in.Name, in.about()), "-i "+in.Name+"=VALUE")
		default:
			bound.Values[in.Name], bound.Origins[in.Name] = in.Default, "default"
		}
	}
	return bound
}

// accept is what in.Accept checks, and that a target exists and is of the kind wanted.
func (b *inputBinder) accept(in *Input, value any) error {
	if in.Kind == "target" {
		return b.unit.acceptTarget(in, value)
	}
	return in.Accept(value)
}

func (u *Unit) acceptTarget(in *Input, value any) error {
	name, ok := value.(string)
	if !ok {
		return nil // null is the default of an optional one
	}
	var names []string
	for _, t := range u.Targets {
		if in.Decl != nil && in.Decl.Kind.Set && (t.Kind == nil || t.Kind.Name != in.Decl.Kind.Value) {
			if t.Name == name && t.Kind != nil {
				return fmt.Errorf("target %s is of kind %s, not %s", name, t.Kind.Name, in.Decl.Kind.Value)
			}
			continue
		}
		if t.Name == name {
			return nil
		}
		names = append(names, t.Name)
	}
	near, _ := schema.Nearest(name, names)
	return &inputError{fmt.Sprintf("there is no target %q", name), near}
}

type inputError struct{ message, suggestion string }

func (e *inputError) Error() string { return e.message }

// bindCall binds the inputs of a runbook used as a step: values are what its `with`
// evaluated to. Defaults are put in and every declaration's conditions are checked. The
// value of an input of type target or secret is passed on as it is.
func (u *Unit) bindCall(values map[string]any) (map[string]any, error) {
	bound := make(map[string]any, len(u.Inputs))
	var problems []string
	for name := range values {
		if u.input(name) == nil {
			problems = append(problems, fmt.Sprintf("there is no input %q", name))
		}
	}
	for _, in := range u.Inputs {
		v, ok := values[in.Name]
		switch {
		case !ok && in.Required:
			problems = append(problems, fmt.Sprintf("input %s is required", in.Name))
		case !ok:
			bound[in.Name] = in.Default
		case in.Kind == "target" || in.Kind == "secret":
			bound[in.Name] = v
		default:
			n, err := in.Normalise(v)
			if err == nil {
				err = in.Accept(n)
			}
			if err != nil {
				problems = append(problems, fmt.Sprintf("input %s: %v", in.Name, err))
			}
			bound[in.Name] = n
		}
	}
	if len(problems) > 0 {
		return nil, errors.New(strings.Join(problems, "; "))
	}
	return bound, nil
}

// read gives a value from outside the form that expressions see.
func (in *Input) read(v givenValue) (any, error) {
	if !v.isText {
		if v.origin == "sandbox" {
			return in.Normalise(expression.Value(v.plain))
		}
		return in.Normalise(v.value.Plain())
	}
	switch in.Kind {
	case "string", "duration", "addr", "target", "slots":
		return in.Normalise(v.text)
	case "size":
		return in.Normalise(strings.TrimSpace(v.text))
	case "int", "float", "bool":
		value, err := parseValue(v.path, v.text)
		if err != nil {
			return nil, err
		}
		if value.Kind == schema.ScalarValue && value.Scalar != nil && value.Scalar.Quoted {
			return nil, &schema.MismatchError{Wanted: in.wanted(), Given: "text"}
		}
		return in.Normalise(value.Plain())
	}
	value, err := parseValue(v.path, v.text)
	if err != nil {
		return nil, err
	}
	plain := value.Plain()
	if in.Kind == "list" && value.Kind != schema.ListValue || in.Kind == "map" && value.Kind != schema.MapValue {
		example := "[a, b]"
		if in.Kind == "map" {
			example = "{name: value}"
		}
		return nil, &schema.MismatchError{Wanted: "a " + in.Kind, Given: fmt.Sprintf("%q", v.text), Suggestion: "-i '" + in.Name + "=" + example + "'"}
	}
	return in.Normalise(plain)
}

func (in *Input) wanted() string {
	switch in.Kind {
	case "int":
		return "an integer"
	case "float":
		return "a number"
	case "bool":
		return "true or false"
	}
	return in.Kind
}

// Normalise gives a value of the input's declared type the form that expressions see:
// slots in their text forms become a list, durations and sizes are read. Nothing else is
// coerced; the error is a *schema.MismatchError.
func (in *Input) Normalise(v any) (any, error) {
	if v == nil {
		if in.Type != nil && in.Type.Nullable || !in.Required && in.Default == nil {
			return nil, nil
		}
		return nil, &schema.MismatchError{Wanted: in.wanted(), Given: "nothing"}
	}
	switch in.Kind {
	case "string", "target", "secret":
		return bindAs[string](v)
	case "int":
		return bindAs[int](v)
	case "float":
		return bindAs[float64](v)
	case "bool":
		return bindAs[bool](v)
	case "duration":
		return bindAs[time.Duration](v)
	case "size":
		return bindAs[schema.Size](v)
	case "addr":
		return bindAs[schema.Addr](v)
	case "slots":
		return bindAs[schema.Slots](v)
	case "list":
		return bindAs[[]any](v)
	case "map":
		return bindAs[map[string]any](v)
	}
	return expression.Value(v), nil
}

// bindAs reads a value as a Go type, by the rules of schema.Bind, and gives it the form of expressions.
func bindAs[T any](v any) (any, error) {
	var into struct {
		V T `yaml:"v"`
	}
	if err := schema.Bind(map[string]any{"v": v}, &into); err != nil {
		if m, ok := errors.AsType[*schema.MismatchError](err); ok {
			m.Input = strings.TrimPrefix(strings.TrimPrefix(m.Input, "v"), ".")
			return nil, m
		}
		return nil, err
	}
	return expression.Value(into.V), nil
}

// Accept checks a value in its normal form against enum, pattern, min, max and check.
func (in *Input) Accept(value any) error {
	d := in.Decl
	if d == nil || value == nil {
		return nil
	}
	if len(d.Enum) > 0 {
		var words []string
		found := false
		for i := range d.Enum {
			allowed, err := in.Normalise(d.Enum[i].Plain())
			found = found || err == nil && reflect.DeepEqual(allowed, value)
			words = append(words, ShowValue(allowed))
		}
		if !found {
			near, _ := schema.Nearest(ShowValue(value), words)
			return &inputError{fmt.Sprintf("%s is not one of %s", ShowValue(value), strings.Join(words, ", ")), near}
		}
	}
	if d.Pattern.Set {
		text, err := expression.Text(value)
		if err != nil {
			return err
		}
		re, err := fullMatch(d.Pattern.Value)
		if err != nil {
			return fmt.Errorf("its pattern does not compile: %w", err)
		}
		if !re.MatchString(text) {
			return fmt.Errorf("%q does not match the pattern %s", text, d.Pattern.Value)
		}
	}
	for _, bound := range []struct {
		limit *schema.Value
		word  string
		sign  float64
	}{{d.Min, "less than", -1}, {d.Max, "more than", 1}} {
		if bound.limit == nil {
			continue
		}
		limit, err := in.Normalise(bound.limit.Plain())
		if err != nil {
			continue // lint says so
		}
		v, ok1 := number(value)
		l, ok2 := number(limit)
		if ok1 && ok2 && (v-l)*bound.sign > 0 {
			return fmt.Errorf("%s is %s %s", ShowValue(value), bound.word, ShowValue(limit))
		}
	}
	if in.Check != nil {
		env := map[string]any{"value": value}
		v, err := in.Check.Eval(env)
		if err != nil {
			return fmt.Errorf("check: %s: %w", in.Check.Source, err)
		}
		if v != true {
			why := ""
			for _, part := range in.Check.Parts(env) {
				if why += ", " + part.Text + " is " + ShowValue(part.Value); len(why) > 300 {
					break
				}
			}
			if why != "" {
				why = " (" + strings.TrimPrefix(why, ", ") + ")"
			}
			return fmt.Errorf("check: %s does not hold%s", in.Check.Source, why)
		}
	}
	return nil
}

func fullMatch(pattern string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:` + pattern + `)$`)
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case float64:
		return v, true
	case time.Duration:
		return float64(v), true
	}
	return 0, false
}

// EvalVars evaluates a unit's vars, each once, in the order of the file: a later one sees
// the earlier. env is what expressions see beside them (inputs, targets, run).
func (u *Unit) EvalVars(env map[string]any) (map[string]any, error) {
	vars := make(map[string]any, len(u.Vars))
	within := make(map[string]any, len(env)+1)
	for k, v := range env {
		within[k] = v
	}
	within["vars"] = vars
	for _, v := range u.Vars {
		value, err := v.Value.Eval(within)
		if err != nil {
			return nil, fmt.Errorf("vars.%s: %w", v.Name, err)
		}
		vars[v.Name] = value
	}
	return vars, nil
}

// ShowValue is a value as people read it: as in text, null as null.
func ShowValue(v any) string {
	if v == nil {
		return "null"
	}
	if err, ok := v.(error); ok {
		return err.Error()
	}
	text, err := expression.Text(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return text
}

func (u *Unit) input(name string) *Input {
	for _, in := range u.Inputs {
		if in.Name == name {
			return in
		}
	}
	return nil
}

func (u *Unit) inputNames() []string {
	names := make([]string, len(u.Inputs))
	for i, in := range u.Inputs {
		names[i] = in.Name
	}
	return names
}

// inputSpan is where an input is declared.
func (u *Unit) inputSpan(name string) schema.Span {
	for _, e := range u.Book.Inputs {
		if e.Key.Value == name {
			return e.Key.Span
		}
	}
	return u.Book.Span
}

// about is what a person must know to give an input.
func (in *Input) about() string {
	words := in.Kind
	if in.Decl != nil && in.Decl.Description.Value != "" {
		words += ": " + in.Decl.Description.Value
	}
	return " (" + words + ")"
}

// inputsFile is a file of inputs: names and values, nothing else.
type inputsFile struct {
	Values schema.Map[schema.Value] `yaml:",rest"`
}

func parseInputsFile(path string, text []byte) (schema.Map[schema.Value], []schema.Finding) {
	var f inputsFile
	findings := schema.Decode(path, text, &f)
	return f.Values, findings
}

// parseValue reads one YAML value, as after -i name=. Text that YAML would take for the
// beginning of something else (a lone "- x") is refused by the parser.
func parseValue(path, text string) (schema.Value, error) {
	var f inputsFile
	findings := schema.Decode(path, []byte("value: "+text+"\n"), &f)
	v, ok := f.Values.Get("value")
	switch {
	case schema.Failed(findings):
		for _, found := range findings {
			if found.Severity == schema.Error {
				return v, fmt.Errorf("%q cannot be read as YAML: %s", text, found.Message)
			}
		}
	case !ok || len(f.Values) != 1:
		return v, fmt.Errorf("%q is not one value", text)
	}
	return v, nil
}
