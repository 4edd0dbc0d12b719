package runner

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"runbook/runner/expression"
	"runbook/schema"
)

// PlanPolicy is what a policy says of a plan. One that has nothing to say is not there.
type PlanPolicy struct {
	Name    string `json:"name,omitempty" doc:"Name of a built-in policy; absent: it is the author's own."`
	Verdict string `json:"verdict" enum:"denied,warned,waived" doc:"denied: the plan is refused."`
	Message string `json:"message" doc:"What a person reads."`
	Step    string `json:"step,omitempty" doc:"Path of the step that a built-in policy finds fault with."`
	Unknown string `json:"unknown,omitempty" doc:"What only a run can know; the policy is taken to hold because it may."`
	Reason  string `json:"reason,omitempty" doc:"Why it is waived."`
	Path    string `json:"path" doc:"File of the policy's own expression, of its waiver, or of the step."`
	Line    int    `json:"line" doc:"Line there."`
	at      schema.Finding
	remedy  string
}

// The verdicts of a PlanPolicy.
const (
	denied = "denied"
	warned = "warned"
	waived = "waived"
)

// The rules of findings about a plan.
const (
	rulePolicyDenied = "policy-denied"
	rulePolicyWarned = "policy-warned"
)

// judge asks every policy of a plan: those of files first, then the runbook's, then the
// built-in ones. s is the scope of the runbook itself.
func (p *Program) judge(plan *Plan, s *planScope) []PlanPolicy {
	var verdicts []PlanPolicy
	ask := asking{plan: plan, scope: s}
	authorities := p.policies
	if own := p.Root.policies; own != nil {
		authorities = append(slices.Clone(authorities), own)
	}
	for _, a := range authorities {
		for i := range a.own {
			if v, holds := ask.own(a, &a.own[i]); holds {
				verdicts = append(verdicts, v)
			}
		}
	}
	for _, v := range violations(plan) {
		if verdict := settleBuiltin(v, authorities); verdict.Verdict != warned || !v.policy.linted {
			verdicts = append(verdicts, verdict)
		}
	}
	return verdicts
}

// asking evaluates policies over a plan.
type asking struct {
	plan  *Plan
	scope *planScope
	facts *planFacts // made for the first that asks
}

// own asks a policy of an author's own.
func (a *asking) own(of *policies, rule *policyRule) (verdict PlanPolicy, holds bool) {
	v := PlanPolicy{Verdict: warned, at: rule.at.Finding(schema.Warning, rulePolicyWarned, 0, len([]rune(rule.at.Source)), "", "")}
	if rule.deny {
		v.Verdict = denied
	}
	v.Path, v.Line = of.path, v.at.Line
	refs := rule.holds.Refs
	if rule.message != nil {
		refs = append(slices.Clone(refs), rule.message.Refs()...)
	}
	if a.facts == nil {
		a.facts = factsOfPlan(a.plan, a.scope)
	}
	reads := func(field string) bool {
		return slices.ContainsFunc(refs, func(r expression.Ref) bool {
			return r.Path[0] == "plan" && (len(r.Path) == 1 || r.Path[1] == field)
		})
	}
	suppose, unknown := []supposing{once}, a.facts.unknown(reads)
	if unknown != "" {
		suppose = []supposing{once, least, most}
	}
	yes := 0
	for _, s := range suppose {
		env := a.env(s, reads)
		truth, err := rule.holds.Eval(env)
		if is, _ := truth.(bool); !is && err == nil {
			continue
		}
		if yes++; yes == 1 {
			v.Message = rule.words(env)
		}
		if err != nil {
			v.Unknown = err.Error()
		}
	}
	if yes > 0 && yes < len(suppose) && v.Unknown == "" {
		v.Unknown = unknown
	}
	return v, yes > 0
}

// words is what a policy says to a person.
func (r *policyRule) words(env map[string]any) string {
	if r.message == nil {
		return r.at.Source
	}
	v, err := r.message.Eval(env)
	if err == nil {
		var text string
		if text, err = expression.Text(v); err == nil {
			return strings.TrimSpace(text)
		}
	}
	return fmt.Sprintf("%s (its message cannot be told: %v)", r.at.Source, err)
}

// env has the fields that are read, under what is supposed of the unknown.
func (a *asking) env(s supposing, reads func(field string) bool) map[string]any {
	plan := map[string]any{}
	for _, f := range planFields(anyMapType) {
		if reads(f.name) {
			plan[f.name] = f.value(a.facts, s)
		}
	}
	env := map[string]any{"plan": plan}
	for _, name := range []string{"inputs", "vars", "targets"} {
		env[name] = a.scope.env[name]
	}
	return env
}

// settleBuiltin says what becomes of a violation. What a policy file enforces a runbook cannot
// waive, unless the file lets it; otherwise a waiver counts, then whoever enforces.
func settleBuiltin(v violation, authorities []*policies) PlanPolicy {
	name := v.policy.Name
	node := v.step.node
	verdict := PlanPolicy{Name: name, Verdict: warned, Message: v.message, Step: v.step.Path, Path: node.Unit.Book.Path, Line: node.Step.ID.Span.Start.Line,
		at: atSpan(node.Unit.Book.Path, node.Step.ID.Span), remedy: v.policy.Remedy}
	var waiver, enforcer *schema.Policy
	var waivedIn, insists *policies
	for _, a := range authorities {
		w, e := a.waived[name], a.enforced[name]
		if e == nil {
			e = a.enforced["all"]
		}
		switch {
		case w != nil:
			if waiver == nil {
				waiver, waivedIn = w, a
			}
		case e != nil:
			enforcer = e
			if a.file && !e.Waivable.Value {
				insists = a
			}
		}
	}
	switch {
	case insists != nil && waiver != nil:
		verdict.Verdict, verdict.Reason = denied, waiver.Reason.Value
		verdict.Message += fmt.Sprintf(" (%s waives it, and %s insists on it)", filepath.Base(waivedIn.path), filepath.Base(insists.path))
	case waiver != nil:
		verdict.Verdict, verdict.Reason = waived, strings.TrimSpace(waiver.Reason.Value)
		verdict.Path, verdict.Line = waivedIn.path, waiver.Span.Start.Line
	case enforcer != nil:
		verdict.Verdict = denied
	}
	return verdict
}

func atSpan(path string, s schema.Span) schema.Finding {
	return schema.Finding{Path: path, Line: s.Start.Line, Column: s.Start.Column, EndLine: s.End.Line, EndColumn: s.End.Column}
}

// words are a verdict for people, without its place.
func (v *PlanPolicy) words() string {
	text := v.Message
	if v.Name != "" {
		text = v.Name + ": " + text
	}
	if v.Unknown != "" {
		text += " (it cannot be told: " + v.Unknown + ")"
	}
	return text
}

// PolicyFindings are the policies that deny the plan, as errors, and those that warn of it.
// With an error among them the plan must not be run.
func (p *Plan) PolicyFindings() []schema.Finding {
	var findings []schema.Finding
	for i := range p.Policies {
		v := &p.Policies[i]
		f := v.at
		switch f.Message, f.Suggestion = v.words(), v.remedy; v.Verdict {
		case denied:
			f.Severity, f.Rule = schema.Error, rulePolicyDenied
		case warned:
			f.Severity, f.Rule = schema.Warning, rulePolicyWarned
		default:
			continue
		}
		findings = append(findings, f)
	}
	return schema.Sort(findings)
}

// planOfAnyInputs is the plan with no input known, so that each step may run and each loop
// over an input has nobody knows which items.
func (p *Program) planOfAnyInputs() *Plan {
	pl := &planner{program: p, chosen: func(*Node) bool { return true }, reported: map[string]bool{}, facts: map[*Node]*nodeFacts{}}
	unknown, secrets := map[string]string{}, map[string]any{}
	for _, in := range p.Root.Inputs {
		unknown["inputs."+in.Name] = whileRunning
	}
	for _, s := range p.Root.Secrets {
		secrets[s.Name] = SecretText(s.Name)
	}
	s := pl.enter(nil, p.Root, "", "", map[string]any{}, unknown, secrets)
	plan := &Plan{Name: p.Root.Book.Name.Value, Path: p.Root.Book.Path}
	if p.Root.Lock != nil {
		plan.Lock = pl.text(s, p.Root.Lock)
	}
	plan.Steps, plan.Finally = pl.list(s, p.Root.Steps), pl.list(s, p.Root.Finally)
	return plan
}
