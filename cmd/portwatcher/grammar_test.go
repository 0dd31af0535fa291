package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"portwatcher/internal/config"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/server"
	"portwatcher/internal/server/api"
	"portwatcher/internal/testutil/kernel"
	"portwatcher/internal/wait"
)

// kind is what a flag, a setting, an argument or a parameter takes.
type kind string

const (
	containerList kind = "containers" // as model.ParseSelection reads it
	portList      kind = "ports"      // as model.ParsePorts reads it
	oneTarget     kind = "target"     // a list of containers, and one port
	neither       kind = "neither"
)

// kinds has everything whose name or description mentions containers or ports, by the
// name that inputs gives it. What is of every command that has it stands under its flag.
var kinds = map[string]kind{
	"--monitor-containers":                                containerList,
	"events --container":                                  containerList,
	"/api/v1/containers ?container":                       containerList,
	"/api/v1/containers ?name":                            containerList,
	"/api/v1/ports ?container":                            containerList,
	"/api/v1/events ?container":                           containerList,
	"--watch-ports":                                       portList,
	"events --port":                                       portList,
	"/api/v1/ports ?port":                                 portList,
	"/api/v1/drift ?container":                            containerList,
	"/api/v1/drift ?port":                                 portList,
	"/api/v1/events ?port":                                portList,
	"wait CONTAINER:PORT[/PROTOCOL] ...":                  oneTarget,
	"explain CONTAINER:PORT[/PROTOCOL] | PORT[/PROTOCOL]": oneTarget,
	"explain --from":                                      containerList,
	"explain --probe-udp":                                 neither,
	"/api/v1/explain ?target":                             oneTarget,
	"/api/v1/explain ?from":                               containerList,
	"--explain":                                           neither,
	"--expect":                                            neither,
	"--host":                                              neither,
	"--burst-limit":                                       neither,
	"--close-grace":                                       neither,
	"--listen":                                            neither,
	"--metrics-max-series":                                neither,
	"--server":                                            neither,
	"--udp-clients":                                       neither,
	"wait --exposure":                                     neither,
	"wait --quiet":                                        neither,
	"wait --count":                                        neither,
	"/api/v1/ports ?count":                                neither,
}

var mentions = regexp.MustCompile(`(?i)container|\bports?\b`)

// world is what every input selects from.
var world = func() []model.Open {
	container := func(name, id, project, service string, labels map[string]string) *model.ContainerRef {
		all := maps.Clone(labels)
		if project != "" {
			all[model.LabelProject], all[model.LabelService] = project, service
		}
		return (&model.Container{ID: strings.Repeat(id, 64), Name: name, Labels: all}).Ref()
	}
	web := container("web", "a", "", "", map[string]string{"team": "core/net"})
	db := container("shop-db-1", "b", "shop", "db", map[string]string{"team": "other"})
	front := container("web-2", "c", "shop", "front", map[string]string{})
	open := func(c *model.ContainerRef, protocol model.Protocol, number uint16) model.Open {
		return model.Open{Time: time.Now().UTC(), OpenedAt: time.Now().UTC(), Listener: model.Listener{
			Container: c, Protocol: protocol, Address: netip.IPv4Unspecified(), Port: number, Exposure: model.Network, Source: model.SourceProc,
		}}
	}
	return []model.Open{
		open(web, model.TCP, 80), open(web, model.UDP, 80), open(db, model.UDP, 53), open(front, model.TCP, 8001),
	}
}()

// accepted are lists with what they select from the world.
var accepted = map[kind]map[string]string{
	containerList: {
		"":                 "shop-db-1 web web-2",
		"web":              "web",
		"db":               "shop-db-1", // a Compose service
		"shop/front":       "web-2",
		"shop/*":           "shop-db-1 web-2",
		"web*":             "web web-2",
		"web-?":            "web-2",
		"web-[0-9]":        "web-2",
		"web-[^0-9]":       "",
		"label:team":       "shop-db-1 web",
		"label:team=core*": "web",
		"!label:team":      "web-2",
		"web* !web-2":      "web",
		"web,db":           "shop-db-1 web",
		" web ,\tfront":    "web web-2",
		"aaaaaaaaaaaa":     "web",
		"!web":             "shop-db-1 web-2",
		"(host)":           "", // no container
		"(host) web":       "web",
		"!(host)":          "shop-db-1 web web-2",
	},
	portList: {
		"":                      "53/udp 80/tcp 80/udp 8001/tcp",
		"80":                    "80/tcp 80/udp",
		"80/udp":                "80/udp",
		"8000-8100/tcp":         "8001/tcp",
		"53/udp,80/tcp":         "53/udp 80/tcp",
		" 53 ,\t8000-8100\n81 ": "53/udp 8001/tcp",
	},
}

// mistakes are single entries that are refused everywhere with the words of the grammar.
var mistakes = map[kind][]string{
	containerList: {"!", "!!web", "b[", "b[]", "b[z-a]", "shop/", "a/b/c", "a:b", "label:", "label:a=[", "wéb", `"web"`},
	portList:      {"0", "65536", "http", "80-", "9-8", "80/sctp", "80/TCP"},
}

// input is one way to give containers or ports.
type input struct {
	description string
	kind        kind
	// choose returns what of the world a value selects, or the error that refuses it.
	choose func(t *testing.T, value string) ([]model.Listener, error)
	// withoutLabels means that the labels of containers are not known there.
	withoutLabels bool
}

// TestOneGrammar walks every flag, variable and file setting, argument and parameter.
func TestOneGrammar(t *testing.T) {
	all := inputs(t)
	listed := map[string]bool{}
	for name, in := range all {
		shared := name
		if command, flag, ok := strings.Cut(name, " --"); ok && !strings.HasPrefix(command, "/") && kinds[name] == "" {
			shared = "--" + flag
		}
		in.kind = kinds[shared]
		listed[shared] = true
		switch mentioned := mentions.MatchString(in.description); {
		case in.kind == "" && mentioned:
			t.Errorf("%s mentions containers or ports (%q): add it to kinds", name, in.description)
		case in.kind == neither && !mentioned:
			t.Errorf("%s does not mention containers or ports any more: remove it from kinds", name)
		}
	}
	for name := range kinds {
		if !listed[name] {
			t.Errorf("%s does not exist: remove it from kinds", name)
		}
	}
	for name, in := range all {
		if in.kind == "" || in.kind == neither {
			continue
		}
		t.Run(name, func(t *testing.T) { in.test(t) })
	}
}

func (in *input) test(t *testing.T) {
	grammar := in.kind
	if grammar == oneTarget {
		grammar = containerList
	}
	for list, want := range accepted[grammar] {
		if list == "" && in.kind == oneTarget {
			continue // a target names a container
		}
		selected, err := in.choose(t, list)
		if err != nil {
			t.Errorf("%q is refused: %v", list, err)
			continue
		}
		if in.withoutLabels && strings.Contains(list, "label:") {
			continue
		}
		if got := names(grammar, selected); got != want {
			t.Errorf("%q selects %q, want %q", list, got, want)
		}
	}
	for _, entry := range mistakes[grammar] {
		reason := reasonOf(t, grammar, entry)
		if _, err := in.choose(t, "80,"+entry); grammar == portList && !says(err, entry, reason) {
			t.Errorf("80,%s: error %v, want %q in it", entry, err, reason)
		}
		if _, err := in.choose(t, entry); !says(err, entry, reason) {
			t.Errorf("%s: error %v, want %q in it", entry, err, reason)
		}
	}
}

func says(err error, entry, reason string) bool {
	quoted, _ := json.Marshal(entry) // text always encodes
	return err != nil && strings.Contains(err.Error(), reason) && !strings.Contains(err.Error(), "\n") &&
		(strings.Contains(err.Error(), entry) || strings.Contains(err.Error(), string(quoted)))
}

// reasonOf returns the words with which the grammar refuses an entry.
func reasonOf(t *testing.T, grammar kind, entry string) string {
	t.Helper()
	_, err := model.ParsePorts(entry)
	if grammar == containerList {
		_, err = model.ParseSelection(entry)
	}
	wrong, ok := errors.AsType[*model.EntryError](err)
	if !ok {
		t.Fatalf("%q is no mistake", entry)
	}
	return wrong.Err.Error()
}

// names returns the containers or the ports of listeners, sorted.
func names(grammar kind, selected []model.Listener) string {
	found := map[string]bool{}
	for _, l := range selected {
		if grammar == containerList {
			found[l.Container.Name] = true
		} else {
			found[fmt.Sprintf("%d/%s", l.Port, l.Protocol)] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(found)), " ")
}

// chosen returns what a filter selects from the world.
func chosen(filter model.Filter) []model.Listener {
	matcher := filter.Matcher(namesIn(world))
	var selected []model.Listener
	for _, o := range world {
		if matcher.Open(&o) {
			selected = append(selected, o.Listener)
		}
	}
	return selected
}

// inputs returns every flag of every command, every environment variable and file setting
// beside those flags, every command's arguments, and every parameter of the API.
func inputs(t *testing.T) map[string]*input {
	t.Helper()
	all := map[string]*input{}
	for _, cmd := range root().Commands() {
		if _, arguments, ok := strings.Cut(cmd.Use, " "); ok && !strings.HasPrefix(arguments, "[") {
			all[cmd.Use] = &input{description: cmd.Use, choose: chooseTarget}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				addFlag(all, cmd, f)
			}
		})
	}
	maps.Copy(all, parameters(t))
	return all
}

// variables matches the names of the environment variables in a setting's help.
var variables = regexp.MustCompile(`\[([A-Z_, ]+)[^\]]*\]$`)

func addFlag(all map[string]*input, cmd *cobra.Command, f *pflag.Flag) {
	name := cmd.Name() + " --" + f.Name
	description := f.Name + ": " + f.Usage
	if cmd.Name() == "events" && !slices.Contains(config.Names(), f.Name) {
		all[name] = &input{description: description, choose: func(_ *testing.T, value string) ([]model.Listener, error) {
			return chooseEvents("--" + f.Name + "=" + value)
		}}
		return
	}
	if name == "explain --from" {
		all[name] = &input{description: description, choose: func(_ *testing.T, value string) ([]model.Listener, error) {
			q, err := parseQuestion("web:80", value)
			if err != nil {
				return nil, err
			}
			selection, err := model.ParseSelection(q.From)
			return chosen(model.Filter{Containers: selection}), err
		}}
		return
	}
	load := func(arguments, environment []string) ([]model.Listener, error) {
		command, _, err := root().Find([]string{cmd.Name()})
		if err == nil {
			err = command.ParseFlags(arguments)
		}
		if err != nil {
			return nil, err
		}
		s, err := config.NewLoader(command.Flags(), environment).Load()
		if err != nil {
			return nil, err
		}
		return chosen(model.Filter{Containers: s.Containers, Ports: s.WatchPorts}), nil
	}
	all[name] = &input{description: description, choose: func(_ *testing.T, value string) ([]model.Listener, error) {
		return load([]string{"--config=", "--" + f.Name + "=" + value}, nil)
	}}
	if kinds["--"+f.Name] != containerList && kinds["--"+f.Name] != portList {
		return
	}
	for _, variable := range strings.Split(variables.FindStringSubmatch(f.Usage)[1], ", ") {
		all[cmd.Name()+" "+variable+" --"+f.Name] = &input{choose: func(_ *testing.T, value string) ([]model.Listener, error) {
			return load([]string{"--config="}, []string{variable + "=" + value})
		}}
	}
	all[cmd.Name()+" file --"+f.Name] = &input{choose: func(t *testing.T, value string) ([]model.Listener, error) {
		quoted, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(t.TempDir(), "portwatcher.yaml")
		line := strings.ReplaceAll(f.Name, "-", "_") + ": " + string(quoted) + "\n"
		if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
			return nil, err
		}
		return load([]string{"--config=" + path}, nil)
	}}
}

func chooseEvents(argument string) ([]model.Listener, error) {
	var q eventsQuery
	flags := pflag.NewFlagSet("events", pflag.ContinueOnError)
	q.register(flags)
	if err := flags.Parse([]string{argument}); err != nil {
		return nil, err
	}
	query, err := q.parse(time.Now())
	if err != nil {
		return nil, err
	}
	return chosen(query.Filter), nil
}

// chooseTarget waits for a port that every container of the world has open.
func chooseTarget(t *testing.T, value string) ([]model.Listener, error) {
	targets, _, err := (&waitFlags{count: "1"}).parse([]string{value + ":1"})
	if err != nil {
		return nil, err
	}
	local := wait.NewLocal()
	local.Use(func() *model.View {
		view := everywhere{}.View()
		view.Open = everywhere{}.Open()
		return view
	}, everywhere{}.Ready)
	open, err := local.Await(t.Context(), targets[0], wait.Options{})
	if errors.Is(err, wait.ErrTimeout) {
		return nil, nil
	}
	var selected []model.Listener
	for _, o := range open {
		selected = append(selected, o.Listener)
	}
	return selected, err
}

// everywhere is a capture of the world. It implements [server.Capture].
type everywhere struct{}

// Open returns endpoints with port 1 in all containers.
func (everywhere) Open() []model.Open {
	open := slices.Clone(world)
	for i := range open {
		open[i].Port, open[i].Protocol = 1, model.TCP
	}
	return open
}

func (everywhere) Containers() []model.ContainerState {
	var states []model.ContainerState
	for _, o := range world {
		c := o.Container
		if !slices.ContainsFunc(states, func(s model.ContainerState) bool { return s.ID == c.ID }) {
			states = append(states, model.ContainerState{Container: &model.Container{ID: c.ID, Name: c.Name, Labels: c.Labels}})
		}
	}
	return states
}

func (everywhere) Ready() error { return nil }

func (e everywhere) View() *model.View {
	view := &model.View{Time: time.Now().UTC(), Open: world, Containers: e.Containers()}
	for _, o := range world { // each drifts
		view.Drifts = append(view.Drifts, model.OpenDrift{Drift: model.DriftUnexpected, Target: o.Container.Target(), Listener: o.Listener})
	}
	return view
}

// parameters returns every parameter of the API, served by a server of the world.
func parameters(t *testing.T) map[string]*input {
	t.Helper()
	content, err := os.ReadFile("../../internal/server/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type parameter struct {
		Ref         string `yaml:"$ref"`
		Name        string
		In          string
		Description string
	}
	var description struct {
		Paths      map[string]map[string]struct{ Parameters []parameter }
		Components struct{ Parameters map[string]parameter }
	}
	if err := yaml.Unmarshal(content, &description); err != nil {
		t.Fatal(err)
	}
	address := serveWorld(t)
	all := map[string]*input{}
	for path, methods := range description.Paths {
		for _, method := range methods {
			for _, p := range method.Parameters {
				if p.Ref != "" {
					p = description.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
				}
				if p.In != "query" {
					continue
				}
				all[path+" ?"+p.Name] = &input{
					description: p.Name + ": " + p.Description, withoutLabels: path == api.PathEvents,
					choose: func(t *testing.T, value string) ([]model.Listener, error) {
						query := url.Values{p.Name: {value}}
						if path == api.PathExplain {
							query = map[string]url.Values{"target": {"target": {value + ":80"}}, "from": {"target": {"asked:1"}, "from": {value}}}[p.Name]
						}
						return get(t, address+path+"?"+query.Encode())
					},
				}
			}
		}
	}
	return all
}

// get asks the API, and returns the listeners in the answer.
func get(t *testing.T, address string) ([]model.Listener, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Detail     string
		Ports      []model.Open
		Events     []*model.Event
		Containers []struct{ Name string }
		Drifts     []model.OpenDrift
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(answer.Detail)
	}
	var selected []model.Listener
	for _, o := range answer.Ports {
		selected = append(selected, o.Listener)
	}
	for _, e := range answer.Events {
		selected = append(selected, e.Listener)
	}
	for _, d := range answer.Drifts {
		selected = append(selected, d.Listener)
	}
	for _, c := range answer.Containers {
		selected = append(selected, model.Listener{Container: &model.ContainerRef{Name: c.Name}})
	}
	return selected, nil
}

// explainWorld answers with what is open in the container of a question, or in the one that
// asks.
func explainWorld(_ context.Context, target, from string) (any, error) {
	q, err := parseQuestion(target, from)
	if err != nil {
		return nil, &server.InputError{Parameter: "target", Value: target, Err: err}
	}
	containers := q.Container
	if target == "asked:1" {
		containers = from
	}
	selection, err := model.ParseSelection(containers)
	if err != nil {
		return nil, err
	}
	answer := map[string][]map[string]any{"ports": {}}
	for _, l := range chosen(model.Filter{Containers: selection}) {
		answer["ports"] = append(answer["ports"], map[string]any{"container": l.Container, "protocol": l.Protocol, "port": l.Port})
	}
	return answer, nil
}

// serveWorld serves the API with the world as what is open and as what has opened.
func serveWorld(t *testing.T) (address string) {
	t.Helper()
	log, _ := logtest.NewNullLogger()
	record, err := journal.Open(journal.Options{Logger: log, BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	web, err := server.New(server.Options{
		Listen: "127.0.0.1:0", Capture: everywhere{}, History: server.FromJournal(record), Logger: log, Version: "1", Explain: explainWorld,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := web.Listen(); err != nil {
		t.Fatal(err)
	}
	recording, serving := start(t.Context(), record.Run), start(t.Context(), web.Serve)
	t.Cleanup(func() {
		serving.stop()
		recording.stop()
		<-serving.done
		<-recording.done
		if err := errors.Join(serving.err, recording.err, record.Close()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	first := record.NextID()
	for i, o := range world {
		e := &model.Event{ID: first + uint64(i), Time: time.Now().UTC(), Type: model.Opened, Listener: o.Listener}
		if !record.Offer(journal.Record{Event: e}) {
			t.Fatal("the journal drops an event")
		}
	}
	kernel.Eventually(t, "the events are recorded", func() bool { return record.LastID() == first+uint64(len(world))-1 })
	return "http://" + web.Addr().String()
}

// namesIn returns the names of the containers of listeners.
func namesIn(open []model.Open) model.Names {
	var refs []*model.ContainerRef
	for _, o := range open {
		refs = append(refs, o.Container)
	}
	return model.NamesOf(refs)
}
