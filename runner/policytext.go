package runner

// denials stand above everything else: who reads no further has read them.
func (t *planText) denials(p *Plan) {
	for _, v := range p.Policies {
		if v.Verdict == denied {
			t.verdict(v)
		}
	}
}

// policies are warnings and waivers, with what each waiver is about below it.
func (t *planText) policies(p *Plan) {
	for _, v := range p.Policies {
		if v.Verdict == warned {
			t.verdict(v)
		}
	}
	last := ""
	for _, v := range p.Policies {
		if v.Verdict != waived {
			continue
		}
		if v.Name != last {
			t.prose(0, "waived "+v.Name, v.Reason)
		}
		last = v.Name
		t.line(1, v.Message)
	}
}

// verdict is one line, without the place: a comment above a policy changes nothing that it says.
func (t *planText) verdict(v PlanPolicy) {
	word := v.Verdict + ": "
	if v.Name != "" {
		word = v.Verdict + " by "
	}
	t.line(0, word, v.words())
}
