package alert

import (
	"reflect"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// facts is what a rule sees: its fields are the variables, by their expr tags. The tag "about"
// describes a variable for the documentation, and "of" names the words that it can be.
type facts struct {
	Type             string         `expr:"type" of:"types" about:"the type of the event"`
	Drift            string         `expr:"drift" of:"drifts" about:"how the endpoint differs from what is expected; empty where it does not"`
	Ended            bool           `expr:"ended" about:"a drift event by which the drift ends"`
	Host             string         `expr:"host" about:"the name of the host"`
	ContainerName    string         `expr:"container_name" about:"the name of the container; empty where the event names none"`
	Project          string         `expr:"project" about:"the Compose project"`
	Service          string         `expr:"service" about:"the Compose service"`
	Image            string         `expr:"image" about:"the image of the container"`
	Target           string         `expr:"target" about:"project/service of a container that has both, else its name"`
	Container        containerFacts `expr:"container" about:"the container: container.name, container.image, container.project, container.service, container.id and container.labels, as in container.labels[\"team\"]"`
	ContainerAge     float64        `expr:"container_age" about:"seconds from the start of the container to the event, counted from when alerts were first switched on where it started before; -1 where it is not known"`
	Running          bool           `expr:"running" about:"whether the container has run without a stop since the event; compared when the rule first holds and again after its for"`
	Protocol         string         `expr:"protocol" of:"protocols" about:"the protocol"`
	Address          string         `expr:"address" about:"the local address"`
	Port             int            `expr:"port" about:"the port; 0 where the event has none"`
	Namespace        string         `expr:"namespace" about:"the network namespace, where it is not the container's own"`
	Exposure         string         `expr:"exposure" of:"exposures" about:"who can reach the endpoint"`
	Outside          bool           `expr:"outside" about:"another machine can reach it, as far as addresses and networks show"`
	Published        []string       `expr:"published" about:"the addresses of the host that forward to it"`
	Process          string         `expr:"process" about:"the name of the first process"`
	Executable       string         `expr:"executable" about:"the executable of the first process"`
	Processes        []processFacts `expr:"processes" about:"all processes, with pid, container_pid, name, executable, arguments and uid, as in any(processes, .name == \"nc\")"`
	Source           string         `expr:"source" of:"sources" about:"what observed it"`
	Transient        bool           `expr:"transient" about:"it opened and closed between two snapshots"`
	Change           string         `expr:"change" of:"changes" about:"what a changed event changed"`
	PreviousExposure string         `expr:"previous_exposure" of:"exposures" about:"who could reach it before a change"`
	OpenSeconds      float64        `expr:"open_seconds" about:"how long it was open, of a closed event; -1 where it is not known"`
	Reason           string         `expr:"reason" about:"why there is a gap, or why a drift begins or ends"`
	Lost             int            `expr:"lost" about:"how many openings and closings a gap stands for; 0 where it is not known"`
	Opened           int            `expr:"opened" about:"the openings of a burst"`
	Closed           int            `expr:"closed" about:"the closings of a burst"`
	PortCount        int            `expr:"port_count" about:"the distinct ports of a burst"`
	Time             time.Time      `expr:"time" about:"when it happened, in UTC, as in time.Hour() < 6"`
	Widened          func() bool    `expr:"widened" about:"widened(): a changed event after which more can reach the endpoint, or an opening of a port that fewer could reach when it was last open"`
	SeenBefore       func() bool    `expr:"seen_before" about:"seen_before(): the journal has the same port of the same target before"`
}

type containerFacts struct {
	ID      string            `expr:"id"`
	Name    string            `expr:"name"`
	Image   string            `expr:"image"`
	Project string            `expr:"project"`
	Service string            `expr:"service"`
	Labels  map[string]string `expr:"labels"`
}

type processFacts struct {
	PID          int    `expr:"pid"`
	ContainerPID int    `expr:"container_pid"`
	Name         string `expr:"name"`
	Executable   string `expr:"executable"`
	Arguments    string `expr:"arguments"`
	UID          int    `expr:"uid"`
}

// words are what the variables with a tag "of" can be, beside empty.
var words = map[string][]string{
	"types":     texts(model.Types),
	"drifts":    texts(model.Drifts),
	"exposures": texts(model.Exposures),
	"protocols": {model.TCP.String(), model.UDP.String()},
	"changes":   texts(model.Changes),
	"sources": texts([]model.Source{
		model.SourceEBPF, model.SourceSockDiag, model.SourceDestroy, model.SourceProc, model.SourceEngine, model.SourceRTNetlink, model.SourceRestart,
	}),
}

func texts[T ~string](list []T) []string {
	all := make([]string, len(list))
	for i, one := range list {
		all[i] = string(one)
	}
	return all
}

// Variable is a variable of rules, for the documentation.
type Variable struct {
	Name string
	// Type is that of the expression language.
	Type string
	// About describes it, with the words that it can be.
	About string
}

// Variables returns the variables of rules, in the order of the documentation.
func Variables() []Variable {
	var all []Variable
	of := reflect.TypeFor[facts]()
	for i := range of.NumField() {
		field := of.Field(i)
		v := Variable{Name: field.Tag.Get("expr"), Type: kindOf(field.Type), About: field.Tag.Get("about")}
		if list := words[field.Tag.Get("of")]; list != nil {
			v.About += ": " + strings.Join(list, ", ")
		}
		all = append(all, v)
	}
	return all
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Float64, reflect.Int:
		return "number"
	case reflect.Slice:
		return "list"
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return "time"
		}
		return "mapping"
	case reflect.Func:
		return "function"
	}
	return t.Kind().String()
}

// wordsOf returns what a variable can be; nil where that is not bounded.
func wordsOf(variable string) []string {
	of := reflect.TypeFor[facts]()
	for i := range of.NumField() {
		if field := of.Field(i); field.Tag.Get("expr") == variable {
			return words[field.Tag.Get("of")]
		}
	}
	return nil
}

// set makes the facts those of an event, without the functions, ContainerAge and Running.
func (f *facts) set(e *model.Event) {
	processes := f.Processes[:0]
	*f = facts{
		Type: string(e.Type), Drift: string(e.Drift), Ended: e.Ended, Host: e.Host, Namespace: e.Namespace, Port: int(e.Port),
		Exposure: string(e.Exposure), Outside: e.Outside != nil && *e.Outside, Published: e.Published, Source: string(e.Source),
		Transient: e.Transient, Change: string(e.Change), PreviousExposure: string(e.PreviousExposure), OpenSeconds: -1,
		Reason: e.Reason, Lost: int(e.Lost), Time: e.Time, ContainerAge: -1, Widened: f.Widened, SeenBefore: f.SeenBefore,
	}
	if c := e.Container; c != nil {
		f.ContainerName, f.Project, f.Service, f.Image, f.Target = c.Name, c.Project, c.Service, c.Image, c.Target()
		f.Container = containerFacts{c.ID, c.Name, c.Image, c.Project, c.Service, c.Labels}
	}
	if e.Protocol != 0 {
		f.Protocol = e.Protocol.String()
	}
	if e.Address.IsValid() {
		f.Address = e.Address.String()
	}
	if e.OpenSeconds != nil {
		f.OpenSeconds = *e.OpenSeconds
	}
	if e.Burst != nil {
		f.Opened, f.Closed, f.PortCount = int(e.Opened), int(e.Closed), e.PortCount
	}
	for i := range e.Processes {
		p := &e.Processes[i]
		uid := -1
		if p.UID != nil {
			uid = int(*p.UID)
		}
		processes = append(processes, processFacts{p.PID, p.ContainerPID, p.Name, p.Executable, p.Arguments, uid})
	}
	if f.Processes = processes; len(processes) > 0 {
		f.Process, f.Executable = processes[0].Name, processes[0].Executable
	}
}
