package server

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"portwatcher/internal/port"
	"portwatcher/internal/server/api"
)

var objects = regexp.MustCompile(`(?m)^( *)type: object$`)

// description returns the API's description. Strict allows no property that it
// does not name, which clients must do, and the handlers must not rely on.
func description(t testing.TB, strict bool) libopenapi.Document {
	t.Helper()
	text := openAPI
	if strict {
		text = objects.ReplaceAll(text, []byte("${1}type: object\n${1}additionalProperties: false"))
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestDescriptionIsValid(t *testing.T) {
	v, errs := validator.NewValidator(description(t, false))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if valid, problems := v.ValidateDocument(); !valid {
		for _, p := range problems {
			t.Error(p)
		}
	}
}

func TestDescriptionHasEveryRouteAndParameter(t *testing.T) {
	s := start(t, nil)
	model, err := description(t, false).BuildV3Model()
	if err != nil {
		t.Fatal(err)
	}
	described := map[string][]string{}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		if item.Get == nil || item.GetOperations().Len() != 1 {
			t.Errorf("%s: allowed is get alone", path)
		}
		described[path] = queryParameters(item.Get)
	}
	served := map[string][]string{"/metrics": nil, "/healthz": nil, "/readyz": nil}
	for _, route := range s.apiRoutes() {
		served[route.path] = slices.Sorted(slices.Values(route.parameters))
	}
	if !reflect.DeepEqual(described, served) {
		t.Errorf("described: %v\nserved:    %v", described, served)
	}
	if response, body := s.get(t, PathOpenAPI); response.Header.Get("Content-Type") != "application/yaml" || body != string(openAPI) {
		t.Errorf("%s: %d bytes", response.Header.Get("Content-Type"), len(body))
	}
}

func queryParameters(operation *v3.Operation) []string {
	var names []string
	for _, p := range operation.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// TestAnswersAreAsDescribed asks for everything, and validates request and
// answer.
func TestAnswersAreAsDescribed(t *testing.T) {
	s := start(t, nil)
	v, errs := validator.NewValidator(description(t, true))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	opened := s.capture.open[0]
	s.history.record(event(port.Opened, opened), event(port.Closed, opened), event(port.Changed, opened), gap())
	s.history.past = s.capture.open
	for path, status := range map[string]int{
		api.PathStatus: 200, api.PathContainers: 200, api.PathPorts: 200, api.PathEvents: 200,
		api.PathContainers + "?container=shop*&project=shop":                                  200,
		api.PathPorts + "?container=db,shop/web&protocol=tcp&port=80,1-9000&exposure=network": 200,
		api.PathPorts + "?at=1h":                                           200,
		api.PathPorts + "?port=80/tcp&wait=1s":                             200,
		api.PathPorts + "?port=1&wait=0s":                                  408,
		api.PathPorts + "?at=2999-01-01T00:00:00Z":                         404,
		api.PathEvents + "?limit=2&type=opened,gap,closed&transient=false": 200,
		api.PathEvents + "?after=1&since=2020-01-01T00:00:00Z&until=0s":    200,
		"/healthz": 200, "/readyz": 200,
	} {
		request := localRequest(path)
		recorder := httptest.NewRecorder()
		s.handler.ServeHTTP(recorder, request)
		if recorder.Code != status {
			t.Errorf("%s: %d: %s", path, recorder.Code, recorder.Body)
		}
		if valid, problems := v.ValidateHttpRequestResponse(request, recorder.Result()); !valid {
			for _, p := range problems {
				t.Errorf("%s: %v: %v\n%s", path, p, p.SchemaValidationErrors, recorder.Body)
			}
		}
	}
	// What is wrong with the request is not asked here: the answer has to be right.
	for _, path := range []string{api.PathPorts + "?port=x", api.PathEvents + "?nothing=1", api.PathStatus + "?x=1"} {
		request := localRequest(path)
		recorder := httptest.NewRecorder()
		s.handler.ServeHTTP(recorder, request)
		if valid, problems := v.ValidateHttpResponse(request, recorder.Result()); !valid || recorder.Code != http.StatusBadRequest {
			t.Errorf("%s: %d: %v: %s", path, recorder.Code, problems, recorder.Body)
		}
	}
	s.capture.set(func(c *fakeCapture) { c.notReady = http.ErrServerClosed })
	recorder := httptest.NewRecorder()
	request := localRequest("/readyz")
	s.handler.ServeHTTP(recorder, request)
	if valid, problems := v.ValidateHttpResponse(request, recorder.Result()); !valid || recorder.Code != http.StatusServiceUnavailable {
		t.Errorf("%d: %v", recorder.Code, problems)
	}
}

// TestTheValidatorSeesMistakes keeps the tests above from passing whatever
// comes.
func TestTheValidatorSeesMistakes(t *testing.T) {
	v, errs := validator.NewValidator(description(t, true))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, body := range []string{`{}`, `{"ports":[],"time":"2026-01-01T00:00:00Z","more":1}`, `{"ports":[{"time":1}],"time":"2026-01-01T00:00:00Z"}`} {
		recorder := httptest.NewRecorder()
		recorder.Header().Set("Content-Type", "application/json")
		if _, err := recorder.WriteString(body); err != nil {
			t.Fatal(err)
		}
		if valid, _ := v.ValidateHttpResponse(httptest.NewRequest(http.MethodGet, api.PathPorts, nil), recorder.Result()); valid {
			t.Errorf("%s is taken for valid", body)
		}
	}
	if strings.Count(string(openAPI), "type: object\n") < 10 {
		t.Error("the strict description is not strict")
	}
}

func localRequest(path string) *http.Request {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Host = "localhost"
	return request
}
