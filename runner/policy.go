package runner

import (
	"slices"

	"runbook/runner/expression"
	"runbook/schema"
)

// policies are what one authority asks of a plan: the runbook, or a policy file.
type policies struct {
	path string
	file bool // a policy file: a runbook cannot waive what it enforces, unless it says so
	own  []policyRule
	// enforced and waived are the built-in ones by name; "all" is among the enforced.
	enforced, waived map[string]*schema.Policy
}

// policyRule is a policy of an author's own: where it holds, the plan is refused, or warned of.
type policyRule struct {
	decl    *schema.Policy
	at      *schema.Expr
	deny    bool
	holds   *expression.Program
	message *Template // nil: the expression speaks for itself
}

// bindPolicies checks and compiles a list of policies. They see the plan, and in a runbook
// what its inputs, vars and targets are; p says so.
func (r *resolver) bindPolicies(list []schema.Policy, p place, file bool) *policies {
	if len(list) == 0 {
		return nil
	}
	// While comparing, null is nothing that could be true: no pause is not longer than another.
	const mode = expression.Wait
	words := p
	words.isText = true
	set := &policies{path: r.path, file: file, enforced: map[string]*schema.Policy{}, waived: map[string]*schema.Policy{}}
	for i := range list {
		d := &list[i]
		rule := policyRule{decl: d, at: d.Warn, deny: d.Deny != nil}
		if rule.deny {
			rule.at = d.Deny
		}
		if rule.at == nil {
			r.builtin(set, d)
			continue
		}
		if rule.holds = r.compile(rule.at, p, boolType, mode); rule.holds == nil {
			r.words(d.Message, words)
			continue
		}
		if len(rule.holds.Refs) == 0 {
			r.warn(rule.at.Span, "constant-policy", "", "this policy is always the same: it reads nothing of the plan")
		}
		r.usesInputs(rule.holds.Refs)
		if rule.message = r.words(d.Message, words); rule.message != nil {
			r.usesInputs(rule.message.Refs())
		}
		set.own = append(set.own, rule)
	}
	return set
}

// builtin notes what becomes of a built-in policy.
func (r *resolver) builtin(set *policies, d *schema.Policy) {
	name, into, other := d.Enforce, set.enforced, set.waived
	if d.Waive.Set {
		name, into, other = d.Waive, set.waived, set.enforced
	}
	if name.Value == "" {
		return // said by the schema
	}
	before := into[name.Value]
	if before == nil {
		before = other[name.Value]
	}
	if before != nil {
		r.wrong(name.Span, "combination", "", "line %d says already what becomes of %s", before.Span.Start.Line, name.Value)
		return
	}
	if d.Waivable.Set && !set.file {
		r.wrong(d.Waivable.Span, "combination", "", "waivable is for a policy file: a runbook can always waive what it enforces itself")
	}
	into[name.Value] = d
}

// usesInputs marks the inputs that are read as plan.inputs.NAME.
func (r *resolver) usesInputs(refs []expression.Ref) {
	for _, ref := range refs {
		if ref.Path[0] != "plan" || len(ref.Path) > 1 && ref.Path[1] != "inputs" {
			continue
		}
		if len(ref.Path) > 2 {
			r.used[ref.Path[2]] = true
			continue
		}
		r.mention("inputs")
	}
}

// ownPolicies binds the policies of the runbook. What a run alone knows is not there yet.
func (r *resolver) ownPolicies() {
	fields := map[string]*expression.Type{}
	for _, in := range r.u.Inputs {
		if in.Kind != "secret" {
			fields[in.Name] = in.Type
		}
	}
	own := r.bindPolicies(r.book.Policy, place{extra: map[string]*expression.Type{"plan": planType(object(fields))}}, false)
	if !r.sub {
		r.u.policies = own
	}
}

// WithPolicies is the program with policy files to be asked of its plan beside its own
// policies. They decide nothing of what runs, so they are no source of it and not in its digest.
func (p *Program) WithPolicies(files []*schema.PolicyFile) (*Program, []schema.Finding) {
	asked := *p
	var findings []schema.Finding
	for _, f := range files {
		bound, found := bindPolicyFile(f)
		findings = append(findings, found...)
		if bound != nil {
			asked.policies = append(slices.Clip(asked.policies), bound)
		}
	}
	return &asked, schema.Sort(findings)
}

// CheckPolicies checks policy files by themselves, as lint does.
func CheckPolicies(files []*schema.PolicyFile) []schema.Finding {
	_, findings := (&Program{}).WithPolicies(files)
	return findings
}

// bindPolicyFile binds the policies of a file, which are asked of many runbooks and so know
// the inputs of none.
func bindPolicyFile(f *schema.PolicyFile) (*policies, []schema.Finding) {
	l := &loader{programs: map[compiled]*expression.Program{}}
	r := &resolver{loader: l, u: &Unit{nodes: map[string]*Node{}}, book: &schema.Runbook{}, path: f.Path, used: map[string]bool{}, base: map[string]*expression.Type{}}
	bound := r.bindPolicies(f.Policy, place{only: true, extra: map[string]*expression.Type{"plan": planType(anyMapType)}}, true)
	return bound, l.findings
}

// unusedWaivers warns of waivers that waive nothing, whatever the inputs are: the plan is
// judged with none of them known, so that each step may run and each loop have items.
func (l *loader) unusedWaivers(p *Program) {
	own := p.Root.policies
	if own == nil || len(own.waived) == 0 {
		return
	}
	broken := map[string]bool{}
	for _, v := range violations(p.planOfAnyInputs()) {
		broken[v.policy.Name] = true
	}
	r := &resolver{loader: l, path: own.path}
	for i := range p.Root.Book.Policy {
		if w := p.Root.Book.Policy[i].Waive; w.Set && own.waived[w.Value] != nil && !broken[w.Value] {
			r.warn(w.Span, "unused-waiver", "", "this waives nothing: the runbook keeps to %s", w.Value)
		}
	}
}
