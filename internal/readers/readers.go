// Package readers tests what runner writes for other programs on those programs
// themselves: Mermaid's parser and Graphviz for graphs, the published schema of SARIF,
// yaml-language-server for the JSON Schema that editors use.
//
// The programs come from npm, of the versions in package-lock.json; scripts/setup
// installs them into node_modules here. Without them the tests are skipped, and in CI fail.
package readers
