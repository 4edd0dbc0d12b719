package runner

import (
	"context"
	"time"

	"runbook/schema"
	"runbook/steps"
)

// The kinds of the tests: stand-ins of the shape that the real ones have, so that a rule
// is tested without the systems that it is about.

type (
	emptyIn  struct{}
	emptyOut struct{}

	execIn struct {
		Command     []string          `yaml:"command" doc:"Argument vector."`
		Shell       string            `yaml:"shell"`
		Env         map[string]string `yaml:"env"`
		SecretFiles map[string]string `yaml:"secret_files"`
		Parse       string            `yaml:"parse" enum:"json,lines"`
	}
	execOut struct {
		ExitCode int    `yaml:"exit_code,act"`
		Stdout   string `yaml:"stdout,act"`
		Value    any    `yaml:"value,act"`
	}
	httpIn struct {
		Method  string            `yaml:"method" default:"GET"`
		URL     string            `yaml:"url,required" doc:"Address."`
		Headers map[string]string `yaml:"headers"`
		JSON    any               `yaml:"json"`
	}
	httpOut struct {
		Status int    `yaml:"status"`
		Body   string `yaml:"body"`
		JSON   any    `yaml:"json"`
	}
	checkIn struct {
		That []schema.Condition `yaml:"that,required" doc:"What must hold."`
	}
	checkOut struct {
		Passed bool `yaml:"passed"`
	}
	setIn struct {
		Values map[string]any `yaml:"values,required" doc:"Values by name."`
	}
	sleepIn struct {
		Duration time.Duration `yaml:"duration,required" doc:"How long."`
	}
	approveIn struct {
		Message   string `yaml:"message,required" doc:"What is asked."`
		Approvals int    `yaml:"approvals" default:"1" doc:"How many people."`
	}
	stopIn struct {
		Step string `yaml:"step,required" doc:"The step to stop."`
	}
	readIn struct {
		Slots   schema.Slots      `yaml:"slots"`
		Replica schema.TargetName `yaml:"replica"`
		Section string            `yaml:"section"`
		Keys    []string          `yaml:"keys"`
	}
	replicaOut struct {
		Addr string `yaml:"addr"`
		Lag  *int   `yaml:"lag"`
	}
	readOut struct {
		Connected     bool         `yaml:"connected"`
		Lag           *int         `yaml:"lag"`
		Offset        int          `yaml:"offset"`
		Version       string       `yaml:"version"`
		ReplicaState  string       `yaml:"replica_state"`
		MasterAddr    string       `yaml:"master_addr"`
		Replicas      []replicaOut `yaml:"replicas"`
		Missing       int          `yaml:"missing"`
		Mismatches    int          `yaml:"value_mismatches"`
		TypeWrong     int          `yaml:"type_mismatches"`
		TTLWrong      int          `yaml:"ttl_mismatches"`
		Healthy       bool         `yaml:"healthy"`
		CanReplicate  bool         `yaml:"can_replicate"`
		CanSemiAsync  bool         `yaml:"can_codis_semi_async"`
		Installed     bool         `yaml:"rsync_installed"`
		Free          bool         `yaml:"rsync_free"`
		ErrorsPerSec  float64      `yaml:"errors_per_second"`
		ProblemsFound []string     `yaml:"problems"`
	}
	compareIn struct {
		Against      schema.TargetName `yaml:"against,required" doc:"The other target."`
		Mode         string            `yaml:"mode" enum:"sample,full" default:"sample"`
		Slots        schema.Slots      `yaml:"slots"`
		TTLTolerance time.Duration     `yaml:"ttl_tolerance"`
	}
	checkReleaseIn struct {
		Peer schema.TargetName `yaml:"peer,required" doc:"The other instance."`
	}
	healthIn struct {
		Method string `yaml:"method"`
	}
	slotsIn struct {
		Slots schema.Slots `yaml:"slots,required" doc:"Slots, such as 0-3,8."`
	}
	slaveIn struct {
		Slots  schema.Slots    `yaml:"slots,required" doc:"Slots."`
		Master schema.Endpoint `yaml:"master" doc:"Target or IP:port."`
		None   bool            `yaml:"none"`
		Force  bool            `yaml:"force"`
	}
	switchIn struct {
		Slots       schema.Slots      `yaml:"slots,required" doc:"Slots."`
		ToGroup     int               `yaml:"to_group,required" doc:"Group."`
		Source      schema.TargetName `yaml:"source"`
		Destination schema.TargetName `yaml:"destination"`
		MaxPause    time.Duration     `yaml:"max_pause"`
	}
	switchOut struct {
		Pause time.Duration `yaml:"pause,act"`
	}
	configIn struct {
		Name  string `yaml:"name,required" doc:"Parameter."`
		Value string `yaml:"value,required" doc:"Value."`
	}
	configOut struct {
		Before string `yaml:"before"`
		After  string `yaml:"after"`
	}

	redisConfig struct {
		Addr     schema.Addr   `yaml:"addr,required" doc:"host:port."`
		Password schema.Secret `yaml:"password"`
		DB       int           `yaml:"db"`
	}
	codisConfig struct {
		Addr    schema.Addr `yaml:"addr,required" doc:"Dashboard."`
		Product string      `yaml:"product,required" doc:"Product."`
	}
	zkConfig struct {
		Addrs []schema.Addr `yaml:"addrs,required" doc:"Servers."`
	}
	hostConfig struct {
		Addr  string `yaml:"addr"`
		Local bool   `yaml:"local"`
	}
)

func fakeRead[In, Out any](name string, on ...string) *steps.Definition {
	return (&steps.Kind[In, Out]{Name: name, On: on,
		Read: func(context.Context, steps.View, In) (out Out, err error) { return out, nil }}).Define()
}

func fakeWrite[In, Out any](name string, change func(k *steps.Kind[In, Out])) *steps.Definition {
	k := &steps.Kind[In, Out]{Name: name, Effect: steps.Write,
		Plan:  func(context.Context, *steps.View, In) (steps.Change, error) { return steps.Change{}, nil },
		Apply: func(context.Context, steps.Session, In) (out Out, err error) { return out, nil },
		Probe: func(context.Context, steps.View, In) (s steps.State, out Out, err error) { return s, out, nil },
		Check: func(context.Context, steps.View, In) error { return nil },
		Undo:  func(context.Context, steps.Session, In, *Out) error { return nil },
	}
	change(k)
	return k.Define()
}

func fakeTarget[Cfg any](name string) *steps.TargetDefinition {
	return (&steps.TargetKind[Cfg, struct{}]{Name: name}).Define()
}

// fakeCatalog has what the examples of the language use.
func fakeCatalog() *Catalog {
	kinds := []*steps.Definition{
		fakeWrite("exec", func(k *steps.Kind[execIn, execOut]) {
			k.On, k.TargetOptional, k.AuthorKnows = []string{"host"}, true, true
			k.Probe, k.Undo, k.NoUndo = nil, nil, "nobody knows what it did"
			k.Valid = func(in execIn, unknown func(string) bool) []steps.Problem {
				if len(in.Command) == 0 && in.Shell == "" && !unknown("command") && !unknown("shell") {
					return []steps.Problem{{Message: "exec needs command or shell"}}
				}
				return nil
			}
		}),
		fakeWrite("http", func(k *steps.Kind[httpIn, httpOut]) {
			k.AuthorKnows, k.Probe, k.Undo, k.NoUndo = true, nil, nil, "nobody knows what it did"
			k.EffectOf = func(in httpIn) steps.Effect {
				if in.Method == "GET" {
					return steps.Read
				}
				return steps.Write
			}
		}),
		fakeRead[checkIn, checkOut]("check"),
		(&steps.Kind[setIn, emptyOut]{Name: "set", Engine: steps.EngineSet, NothingToUndo: true}).Define(),
		(&steps.Kind[sleepIn, emptyOut]{Name: "sleep", Engine: steps.EngineSleep, NothingToUndo: true}).Define(),
		(&steps.Kind[approveIn, emptyOut]{Name: "approve", Engine: steps.EngineGate, NothingToUndo: true}).Define(),
		(&steps.Kind[stopIn, emptyOut]{Name: "stop-background", Engine: steps.EngineStopBackground, Effect: steps.Write, NothingToUndo: true}).Define(),
		fakeRead[readIn, readOut]("redis.info", "redis", "pika"),
		fakeRead[compareIn, readOut]("redis.compare", "redis", "pika"),
		fakeWrite("redis.config-set", func(k *steps.Kind[configIn, configOut]) { k.On = []string{"redis", "pika"}; k.Idempotent = true }),
		fakeWrite("redis.remove-instance", func(k *steps.Kind[emptyIn, emptyOut]) {
			k.On, k.Effect, k.Undo, k.NoUndo = []string{"redis"}, steps.Destroy, nil, "its data is gone"
		}),
		fakeWrite("redis.flip", func(k *steps.Kind[emptyIn, emptyOut]) {
			k.On, k.Undo, k.NoUndo = []string{"redis"}, nil, "it cannot be put back"
		}),
		fakeRead[checkReleaseIn, readOut]("pika.check-release", "pika"),
		fakeRead[readIn, readOut]("pika.check-rsync-port", "pika"),
		fakeRead[readIn, readOut]("pika.slot-info", "pika"),
		fakeWrite("pika.addslots", func(k *steps.Kind[slotsIn, emptyOut]) { k.On = []string{"pika"} }),
		fakeWrite("pika.slotsslaveof", func(k *steps.Kind[slaveIn, emptyOut]) { k.On = []string{"pika"} }),
		fakeWrite("pika.delslots", func(k *steps.Kind[slotsIn, emptyOut]) {
			k.On, k.Effect, k.Undo, k.NoUndo = []string{"pika"}, steps.Destroy, nil, "the slots' keys are gone"
		}),
		fakeRead[healthIn, readOut]("codis.check-health", "codis"),
		fakeRead[emptyIn, readOut]("codis.proxy-stats", "codis"),
		fakeWrite("codis.switch-slot", func(k *steps.Kind[switchIn, switchOut]) { k.On, k.Effect = []string{"codis"}, steps.Cutover }),
	}
	return NewCatalog(kinds, []*steps.TargetDefinition{
		fakeTarget[redisConfig]("redis"), fakeTarget[redisConfig]("pika"), fakeTarget[codisConfig]("codis"),
		(&steps.TargetKind[zkConfig, steps.Locker]{Name: "zookeeper"}).Define(), fakeTarget[hostConfig]("host"),
	})
}
