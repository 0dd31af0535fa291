// Package conformance has the tests that hold the HTTP API against its
// description, openapi.yaml. It is a package of its own because the validator
// is large: fuzzing the server would build it instrumented.
package conformance
