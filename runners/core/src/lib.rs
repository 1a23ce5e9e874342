//! What all test runners share: configuration, filters, directives, the test record, the UI, the client library.
